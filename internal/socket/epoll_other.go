//go:build !linux

package socket

import "net"

// epollSets are none here.
type epollSets struct{}

func (epollSets) close()                  {}
func (epollSets) streamsLocked() []Stream { return nil }

func (p *Poller) addEpolled(conn *net.TCPConn, initial []byte, f Feeder) (Stream, error) {
	return p.addPortable(conn, initial, f)
}
