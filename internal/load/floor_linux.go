package load

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"

	"letshare-server/internal/socket"
)

// The floor is the least that a WebSocket server of the usual kind does: a goroutine for each
// connection, a handshake by hand, rooms, and one write for each member on the publisher's goroutine.
// It has no authentication, no history, no limits and no queues: a member that does not read stops
// its room. Like the baseline it is not to be tuned.
//
// A connection's first message names its room and is answered with "j". A message that begins with
// "p" goes to all members of the room without this letter, one that begins with "q" to all but its
// publisher. Then "a" and the publish's number on its connection answer it.

type floorServer struct {
	mu    sync.RWMutex
	conns map[net.Conn]struct{}
	rooms map[string]*floorRoom
}

type floorRoom struct {
	mu      sync.Mutex
	members []net.Conn
}

// serveFloor serves on a free port of 127.0.0.1, which it prints, until stdin ends.
func serveFloor(stdin io.Reader, stdout io.Writer) error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &floorServer{conns: make(map[net.Conn]struct{}), rooms: make(map[string]*floorRoom)}
	var accepting, serving sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns[conn] = struct{}{}
			s.mu.Unlock()
			serving.Go(func() { s.serve(conn) })
		}
	})
	if _, err := fmt.Fprintf(stdout, "%d\n", l.Addr().(*net.TCPAddr).Port); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, stdin) // its end is what counts
	l.Close()
	accepting.Wait()
	s.mu.RLock()
	for conn := range s.conns {
		conn.Close()
	}
	s.mu.RUnlock()
	serving.Wait()
	return json.NewEncoder(stdout).Encode(baselineCounts{})
}

func (s *floorServer) serve(conn net.Conn) {
	var room *floorRoom
	defer func() {
		conn.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
		if room != nil {
			room.leave(conn)
		}
	}()
	buf := make([]byte, 4<<10)
	had, err := floorHandshake(conn, buf)
	if err != nil {
		return
	}
	published := 0
	var out []byte
	for {
		data := buf[:had]
		for {
			h, size, err := socket.ParseHeader(data)
			if err != nil || h.Length > 1<<20 {
				return
			}
			total := size + int(h.Length)
			if size == 0 || len(data) < total {
				if total > len(buf) {
					grown := make([]byte, total)
					data = grown[:copy(grown, data)]
					buf = grown
				}
				break
			}
			if !h.Masked || h.Opcode == socket.OpClose {
				return
			}
			payload := data[size:total]
			socket.Mask(payload, h.Key, 0)
			data = data[total:]
			if room == nil {
				room = s.join(string(payload), conn)
				if _, err := conn.Write(socket.AppendFrame(nil, socket.OpText, []byte("j"))); err != nil {
					return
				}
				continue
			}
			if len(payload) == 0 {
				return
			}
			out = socket.AppendFrame(out[:0], socket.OpText, payload[1:])
			except := net.Conn(nil)
			if payload[0] == 'q' {
				except = conn
			}
			room.send(out, except)
			out = socket.AppendFrame(out[:0], socket.OpText, strconv.AppendInt([]byte{'a'}, int64(published), 10))
			published++
			if _, err := conn.Write(out); err != nil {
				return
			}
		}
		had = copy(buf, data)
		n, err := conn.Read(buf[had:])
		if err != nil {
			return
		}
		had += n
	}
}

// floorHandshake answers the upgrade and leaves in buf what follows it.
func floorHandshake(conn net.Conn, buf []byte) (had int, err error) {
	for {
		n, err := conn.Read(buf[had:])
		if err != nil {
			return 0, err
		}
		had += n
		head, rest, ok := bytes.Cut(buf[:had], []byte("\r\n\r\n"))
		if !ok {
			if had == len(buf) {
				return 0, errors.New("handshake without end")
			}
			continue
		}
		_, after, ok := bytes.Cut(head, []byte("Sec-WebSocket-Key: "))
		if !ok {
			return 0, errors.New("handshake without a key")
		}
		key, _, _ := bytes.Cut(after, []byte("\r\n"))
		sum := sha1.Sum(append(bytes.Clone(key), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...))
		if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
			base64.StdEncoding.EncodeToString(sum[:])); err != nil {
			return 0, err
		}
		return copy(buf, rest), nil
	}
}

func (s *floorServer) join(name string, conn net.Conn) *floorRoom {
	s.mu.Lock()
	r := s.rooms[name]
	if r == nil {
		r = &floorRoom{}
		s.rooms[name] = r
	}
	s.mu.Unlock()
	r.mu.Lock()
	r.members = append(r.members, conn)
	r.mu.Unlock()
	return r
}

func (r *floorRoom) leave(conn net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, m := range r.members {
		if m == conn {
			r.members = append(r.members[:i], r.members[i+1:]...)
			return
		}
	}
}

func (r *floorRoom) send(frame []byte, except net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.members {
		if m != except {
			_, _ = m.Write(frame) // who is gone notices by itself
		}
	}
}
