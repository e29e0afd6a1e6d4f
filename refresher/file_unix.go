//go:build unix

package refresher

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"
)

// openPipe opens a named pipe for reading. It waits for a writer until ctx ends.
func openPipe(ctx context.Context, path string) (*os.File, error) {
	type result struct {
		r   *os.File
		err error
	}
	opened := make(chan result, 1)
	go func() {
		r, err := os.Open(path)
		opened <- result{r, err}
	}()
	select {
	case got := <-opened:
		return got.r, got.err
	case <-ctx.Done():
	}
	for {
		// Opening the pipe for writing ends the os.Open above.
		if w, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
			_ = w.Close()
		}
		select {
		case got := <-opened:
			if got.r != nil {
				_ = got.r.Close()
			}
			return nil, fmt.Errorf("file %s: no process writes to this pipe: %w", path, context.Cause(ctx))
		case <-time.After(10 * time.Millisecond):
		}
	}
}
