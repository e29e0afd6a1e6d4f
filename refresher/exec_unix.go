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

// ownGroup makes the program the leader of a session, and of a process group that
// includes its children. The session has no terminal. In a process group of the same
// session, a program that reads from the terminal would be stopped as a background job.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

// drainPipe copies what is in the pipe, and waits for nothing more.
func drainPipe(r *os.File, to io.Writer) {
	_ = r.SetReadDeadline(time.Time{})
	conn, err := r.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 4<<10)
	_ = conn.Read(func(fd uintptr) bool { // without blocking, as os.Pipe sets O_NONBLOCK
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

// killRest kills the children of a program that has ended.
func killRest(p *os.Process) { _ = killTree(p) }
