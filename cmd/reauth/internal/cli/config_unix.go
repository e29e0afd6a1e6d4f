//go:build unix

package cli

import (
	"fmt"
	"io/fs"
)

// writableByOthers says who may write a file beside its owner; "" if nobody.
func writableByOthers(info fs.FileInfo) string {
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Sprintf("may be written by others (mode %04o), who could have programs run", mode)
	}
	return ""
}
