//go:build !unix

package cli

import "io/fs"

func writableByOthers(fs.FileInfo) bool { return false }
