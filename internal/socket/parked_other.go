//go:build !linux

package socket

import "net"

// parkable says that this system's TCP sockets are carried by portable streams.
const parkable = false

func (p *Poller) addParked(conn *net.TCPConn, initial []byte, f Feeder) (Stream, error) {
	return p.addPortable(conn, initial, f)
}

// parkedList is empty here.
type parkedList struct{}

func (parkedList) all() []Stream { return nil }
