package cli

import (
	"os/exec"
	"syscall"
)

// endWithParent has the child end if this process is killed: without the proxy it could do
// nothing.
func endWithParent(child *exec.Cmd) {
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
