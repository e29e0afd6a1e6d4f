//go:build unix

package cli

import (
	"io/fs"
	"os"
	"syscall"
)

// writableByOthers reports whether others than this user and root may write a file, or
// replace what is in a directory.
func writableByOthers(info fs.FileInfo) bool {
	if sys, ok := info.Sys().(*syscall.Stat_t); ok && sys.Uid != 0 && int(sys.Uid) != os.Getuid() {
		return true
	}
	return info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0
}
