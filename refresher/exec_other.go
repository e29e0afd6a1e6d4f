//go:build !unix

package refresher

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
)

func ownGroup(*exec.Cmd) {}

// drainPipe is not reached: pipes have no deadlines here.
func drainPipe(*os.File, io.Writer) {}

// killTree kills the program and its children with taskkill on Windows, as without it a
// job object would be needed. On other systems it kills the program alone.
func killTree(p *os.Process) error {
	if runtime.GOOS == "windows" && exec.Command("taskkill", "/T", "/F", "/PID", strconv.Itoa(p.Pid)).Run() == nil {
		return nil
	}
	return p.Kill()
}

// killRest does nothing: the id of a program that has ended may belong to another
// program.
func killRest(*os.Process) {}
