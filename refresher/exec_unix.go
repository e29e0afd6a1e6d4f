//go:build unix

package refresher

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// ownGroup lets the program lead a session, and with it a process group, in which its
// children are. It has no terminal: in a group of its own alone, who reads from there is
// stopped as a job in the background.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

// drainPipe copies what is in the pipe, and waits for nothing more.
func drainPipe(r *os.File, to io.Writer) {
	_ = r.SetReadDeadline(time.Time{})
	conn, err := r.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 4<<10)
	_ = conn.Read(func(fd uintptr) bool { // without blocking: os.Pipe says so
		for {
			n, err := syscall.Read(int(fd), buf)
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if n <= 0 {
				return true
			}
			_, _ = to.Write(buf[:n])
		}
	})
}

func killTree(p *os.Process) error {
	err := syscall.Kill(-p.Pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// killRest kills what a program left behind that has ended itself.
func killRest(p *os.Process) { _ = killTree(p) }
