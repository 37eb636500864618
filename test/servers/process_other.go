//go:build !linux

package servers

import "syscall"

// DieWithParent has no counterpart here.
func DieWithParent() *syscall.SysProcAttr { return nil }
