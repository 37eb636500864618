package servers

import "syscall"

// DieWithParent ends a process also when the test that started it is killed.
func DieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
