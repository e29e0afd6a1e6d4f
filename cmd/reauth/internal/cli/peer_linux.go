package cli

import (
	"net"
	"os"

	"github.com/vishvananda/netlink"
)

// peersAreKnown reports whether the user of a connection's other end can be asked for.
const peersAreKnown = true

// tcpEstablished is TCP_ESTABLISHED of the kernel.
const tcpEstablished = 1

// checkPeer reports why the other end of a loopback connection is not a process of this
// user, as the kernel says (sock_diag(7)). What is not known for certain is refused: the
// socket of a process that has gone is shown with the user 0 and no inode.
func checkPeer(conn net.Conn) error {
	peer, ok1 := conn.RemoteAddr().(*net.TCPAddr)
	here, ok2 := conn.LocalAddr().(*net.TCPAddr)
	if !ok1 || !ok2 {
		return sayf("a connection of the kind %s has no known user", conn.RemoteAddr().Network())
	}
	s, err := netlink.SocketGet(peer, here)
	switch {
	case err != nil:
		return sayf("the user of the connection is not known: %v", err)
	case s.State != tcpEstablished || s.INode == 0:
		return sayf("the user of the connection is not known: its other end is closed")
	case s.UID != uint32(os.Getuid()):
		return sayf("the connection is that of another user, %d", s.UID)
	}
	return nil
}
