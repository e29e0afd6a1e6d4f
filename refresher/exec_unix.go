//go:build unix

package refresher

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// ownGroup lets the program lead a process group, in which its children are.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func killTree(p *os.Process) error {
	err := syscall.Kill(-p.Pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// killRest kills what a program left behind that has ended itself.
func killRest(p *os.Process) { _ = killTree(p) }
