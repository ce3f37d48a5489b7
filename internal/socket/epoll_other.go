//go:build !linux

package socket

import (
	"net"
	"sync"
)

// epollSets are none here.
type epollSets struct{}

func (epollSets) start(*sync.WaitGroup, chan<- error) {}
func (epollSets) close()                              {}
func (epollSets) streams() []Stream                   { return nil }

func (p *Poller) addEpolled(conn *net.TCPConn, initial []byte, f Feeder) (Stream, error) {
	return p.addPortable(conn, initial, f)
}
