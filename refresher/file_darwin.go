package refresher

import (
	"io/fs"
	"syscall"
	"time"
)

// changed returns when the file was last changed in any way, if the system reports it.
func changed(info fs.FileInfo) (time.Time, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return time.Time{}, false
	}
	return time.Unix(st.Ctimespec.Unix()), true
}
