package storage

import (
	"net"

	"golang.org/x/sys/unix"
)

// sendQueue is how many bytes written to the connection have not been acknowledged; 0 if it is closed.
func sendQueue(conn *net.TCPConn) (n int) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	if err := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil {
		return 0
	}
	return n
}
