//go:build unix

package cli

import "io/fs"

// writableByOthers reports whether others than its owner may write a file.
func writableByOthers(info fs.FileInfo) bool { return info.Mode().Perm()&0o022 != 0 }
