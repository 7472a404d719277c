// Command pgrep knows one question, `pgrep -P PID`: which processes have this parent? Katib's metrics collector asks it
// before it stops a training early; its own image has the one of busybox.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if len(os.Args) != 3 || os.Args[1] != "-P" {
		fmt.Fprintln(os.Stderr, "usage: pgrep -P PID")
		os.Exit(2)
	}
	found := false
	paths, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		// PID (NAME) STATE PARENT …, where the name may hold blanks and parentheses.
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		if len(fields) > 1 && string(fields[1]) == os.Args[2] {
			fmt.Println(filepath.Base(filepath.Dir(path)))
			found = true
		}
	}
	if !found {
		os.Exit(1)
	}
}
