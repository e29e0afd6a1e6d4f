//go:build unix

package file

import (
	"errors"
	"os"
	"syscall"
)

// isBusy reports whether a rename failed because its target is a mount point.
func isBusy(err error) bool { return errors.Is(err, syscall.EBUSY) }

// syncDir makes a rename durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) { // some file systems do not support it
		return err
	}
	return nil
}
