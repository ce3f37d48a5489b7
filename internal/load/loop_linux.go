package load

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"letshare-server/internal/socket"
)

// loop is one thread's connections. Everything in it belongs to the goroutine that runs the
// phase.
type loop struct {
	e       *engine
	dialect dialect
	conns   []*conn
	rooms   []*room
	groups  []*groupState

	poll    int
	beside  int // the epoll set, in poll, of the groups that are not measured
	timer   int // timerfd that wakes the loop for what must be sent next
	events  []unix.EpollEvent
	buf     []byte
	payload []byte
	dirty   []*conn // with bytes to write
	now     int64   // ns since the engine's base, read after each system call that may take long

	publishing  bool
	end         int64 // of publishing
	quota       int64 // deliveries to cause before publishing ends early; zero means any number
	outstanding int64 // deliveries and acknowledgements still to come
	givenUp     int64 // those of them that an earlier phase waited for in vain
	opening     int   // handshakes under way
	ready       int
	open        int
	progress    int64 // when something last moved

	counts       counts
	firstErrors  []string
	connectTimes histogram
	lag          time.Duration // the most that a message was sent behind its time
	busiest      float64       // share of a phase's time that the thread ran, the largest of all phases

	// done is how many deliveries and acknowledgements came; others may read it at any time.
	done atomic.Uint64
}

// groupState is one loop's part of a group.
type groupState struct {
	turns     []*publisher
	interval  float64 // ns between messages of this loop
	start     int64
	sent      int64 // since start
	published uint64
	expected  uint64
	acks      uint64
	latency   histogram
	last      int64
}

// conn is one connection.
type conn struct {
	fd     int32
	member int32 // place in the room
	number int32 // place in the loop
	state  connState
	wants  bool // EPOLLOUT is asked for
	isOut  bool // is in dirty
	room   *room
	pub    *publisher // nil if it only receives
	in     []byte     // half a frame
	joined []byte     // fragments of a message
	out    []byte
	tls    *secured // nil without TLS
	begun  int64
}

type connState uint8

const (
	connClosed connState = iota
	connDialing
	connUpgrading
	connOpening // waits to be connected and joined
	connReady
	connLeaving
)

const maxErrors = 5

func (l *loop) fail(format string, args ...any) {
	l.counts.failures++
	l.remember(format, args...)
}

func (l *loop) remember(format string, args ...any) {
	if len(l.firstErrors) >= maxErrors {
		return
	}
	if text := fmt.Sprintf(format, args...); !slices.Contains(l.firstErrors, text) {
		l.firstErrors = append(l.firstErrors, text)
	}
}

// begin makes the loop's epoll set. The thread stays with the loop during a phase, so that its
// wake-ups do not travel between threads.
func (l *loop) begin() error {
	if l.poll >= 0 {
		return nil
	}
	var err error
	if l.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("make an epoll set: %w", err)
	}
	if l.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return fmt.Errorf("make a timer: %w", err)
	}
	if err = unix.EpollCtl(l.poll, unix.EPOLL_CTL_ADD, l.timer, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: timerEvent}); err != nil {
		return fmt.Errorf("wait for the timer: %w", err)
	}
	if len(l.groups) == 1 {
		return nil
	}
	if l.beside, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("make an epoll set: %w", err)
	}
	return unix.EpollCtl(l.poll, unix.EPOLL_CTL_ADD, l.beside, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: besideEvent})
}

// What stands in the place of a connection's number in events of poll.
const (
	timerEvent  = -1
	besideEvent = -2
)

// besideAtOnce is how many connections of the groups that are not measured are read before the loop
// looks at those that are. Connections are told of in the order in which they became readable, so the
// receivers of a large room would be in front of everybody else by milliseconds: a queue in the tool,
// which clients on machines of their own do not have.
const besideAtOnce = 32

// pollOf is the epoll set that c belongs to.
func (l *loop) pollOf(c *conn) int {
	if c.room.group > 0 {
		return l.beside
	}
	return l.poll
}

func (l *loop) close() {
	for _, c := range l.conns {
		l.drop(c)
	}
	for _, fd := range []*int{&l.timer, &l.beside, &l.poll} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}

// spin handles events until done says so.
func (l *loop) spin(done func() bool) error {
	if err := l.begin(); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	armed := int64(0)
	l.now = l.e.now()
	defer l.watchThread(l.now, threadUsage())
	for {
		if l.e.stop.Load() {
			return errStopped
		}
		l.publishDue()
		l.flush()
		if done() {
			return nil
		}
		due := l.publishDue() // done may have begun to publish
		l.flush()
		wait := 20 // ms, after which done is asked again
		if due > 0 {
			if l.now = l.e.now(); due <= l.now {
				wait = 0
			} else if due-l.now < int64(20*time.Millisecond) && armed != due {
				set := unix.ItimerSpec{Value: unix.NsecToTimespec(due - l.now)}
				if err := unix.TimerfdSettime(l.timer, 0, &set, nil); err != nil {
					return fmt.Errorf("set the timer: %w", err)
				}
				armed = due
			}
		}
		n, err := unix.EpollWait(l.poll, l.events, wait)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for events: %w", err)
		}
		l.now = l.e.now()
		more := false
		for _, ev := range l.events[:max(n, 0)] {
			switch ev.Fd {
			case timerEvent:
				var ticks [8]byte
				_, _ = unix.Read(l.timer, ticks[:]) // it only wakes
			case besideEvent:
				more = true
			default:
				l.handled(ev)
			}
		}
		if !more {
			continue
		}
		if n, err = unix.EpollWait(l.beside, l.events[:besideAtOnce], 0); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for events: %w", err)
		}
		for _, ev := range l.events[:max(n, 0)] {
			l.handled(ev)
		}
	}
}

// handled handles an event of a connection, and sends what has become due meanwhile.
func (l *loop) handled(ev unix.EpollEvent) {
	l.event(l.conns[ev.Fd], ev.Events)
	if l.publishing {
		l.publishDue()
	}
	l.flush()
}

// watchThread notes how busy the thread was in a phase that began at start.
func (l *loop) watchThread(start int64, before time.Duration) {
	if took := l.e.now() - start; took > int64(200*time.Millisecond) {
		l.busiest = max(l.busiest, float64(threadUsage()-before)/float64(took))
	}
}

func (l *loop) event(c *conn, events uint32) {
	if c.fd < 0 {
		return // closed by an event before, in the same round
	}
	if c.state == connDialing {
		l.dialed(c)
		return
	}
	if events&unix.EPOLLOUT != 0 {
		l.write(c)
	}
	if events&^unix.EPOLLOUT != 0 && c.fd >= 0 {
		l.read(c)
	}
}

// connect opens the loop's connections.
func (l *loop) connect() error {
	next := 0
	limit := max(l.e.spec.concurrency/len(l.e.loops), 1)
	l.progress = l.e.now()
	var trouble error
	err := l.spin(func() bool {
		for next < len(l.conns) && l.opening < limit {
			if trouble = l.dial(l.conns[next]); trouble != nil {
				return true
			}
			next++
		}
		l.flush()
		if l.counts.failures > 0 {
			trouble = fmt.Errorf("connection failed when %d of %d were ready: %s", l.ready, len(l.conns), strings.Join(l.firstErrors, "; "))
			return true
		}
		if l.now-l.progress > int64(l.e.spec.timeout) {
			trouble = l.stuck()
			return true
		}
		return l.ready == len(l.conns)
	})
	if trouble != nil {
		return trouble
	}
	return err
}

func (l *loop) stuck() error {
	in := map[connState]int{}
	for _, c := range l.conns {
		in[c.state]++
	}
	return fmt.Errorf("no connection became ready for %v: %d of %d are; %d wait for TCP, %d for the upgrade, %d for CONNECTED or the room: "+
		"look at the server's log, or raise --timeout", l.e.spec.timeout, l.ready, len(l.conns), in[connDialing], in[connUpgrading], in[connOpening])
}

func (l *loop) dial(c *conn) error {
	address := l.e.address(c)
	to, family, err := sockaddr(address)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket %d: %w (raise the limit of open files: ulimit -n)", l.open, err)
	}
	c.fd, c.state, c.begun = int32(fd), connDialing, l.e.now()
	l.open++
	l.opening++
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fmt.Errorf("set TCP_NODELAY: %w", err)
	}
	if from := l.e.source(int(c.number)*len(l.e.loops) + c.room.id%len(l.e.loops)); from != nil {
		// The port is then chosen at connect, when the whole tuple is known.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return fmt.Errorf("set IP_BIND_ADDRESS_NO_PORT: %w", err)
		}
		if err := unix.Bind(fd, from); err != nil {
			return fmt.Errorf("bind to %v: %w", from.Addr, err)
		}
	}
	if err := unix.Connect(fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return dialError(address, err)
	}
	c.wants = true
	return unix.EpollCtl(l.pollOf(c), unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT, Fd: c.number})
}

func dialError(to *net.TCPAddr, err error) error {
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("connect to %v: %w (is the server running there? give its address with --url)", to, err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("connect to %v: %w (no ports are left: wait for TIME_WAIT to pass, or widen net.ipv4.ip_local_port_range)", to, err)
	}
	return fmt.Errorf("connect to %v: %w", to, err)
}

// The handshake's key is fixed, and so is the answer to it.
const (
	handshakeKey    = "bGV0c2hhcmUgbG9hZCB0bw=="
	handshakeAccept = "SaK6b4sX3R3puNeSYbUfCg3EteM="
)

func (l *loop) dialed(c *conn) {
	if code, err := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
		if err == nil {
			err = unix.Errno(code)
		}
		l.fail("%v", dialError(l.e.address(c), err))
		l.drop(c)
		return
	}
	if config := l.e.spec.tls; config != nil {
		var err error
		if c.tls, err = secure(int(c.fd), config, l.e.spec.timeout); err != nil {
			l.fail("%v", err)
			l.drop(c)
			return
		}
		l.now = l.e.now()
	}
	if target := l.dialect.target(int(c.number)*len(l.e.loops) + c.room.id%len(l.e.loops)); target != "" {
		c.state = connUpgrading
		c.out = fmt.Appendf(c.out, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", target, l.e.spec.host, handshakeKey)
	} else {
		c.state = connOpening
		c.out = l.dialect.opening(c.out, c.room.channel, c.room.id)
	}
	l.write(c)
}

// upgraded reads the server's half of the handshake and returns what follows it.
func (l *loop) upgraded(c *conn, data []byte) []byte {
	end := bytes.Index(data, []byte("\r\n\r\n"))
	if end < 0 {
		if len(data) > 16<<10 {
			l.fail("handshake answer without end: %.100q", data)
			l.drop(c)
		}
		return data
	}
	if !bytes.HasPrefix(data, []byte("HTTP/1.1 101 ")) {
		line, _, _ := bytes.Cut(data, []byte("\r\n"))
		text := fmt.Sprintf("upgrade refused: %s: %.200s", line, bytes.TrimSpace(data[end:]))
		if bytes.HasPrefix(data, []byte("HTTP/1.1 401")) {
			text += " (--key, --token or --jwt-secret is not the server's)"
		}
		l.fail("%s", text)
		l.drop(c)
		return nil
	}
	if !bytes.Contains(data[:end], []byte(handshakeAccept)) {
		l.fail("upgrade without the right Sec-WebSocket-Accept: %.300q", data[:end])
		l.drop(c)
		return nil
	}
	c.state = connOpening
	c.out = l.dialect.opening(c.out, c.room.channel, c.room.id)
	l.touch(c)
	return data[end+4:]
}

func (l *loop) isReady(c *conn) {
	if c.state != connOpening {
		return
	}
	c.state = connReady
	l.ready++
	l.opening--
	l.progress = l.now
	l.connectTimes.record(time.Duration(l.now - c.begun))
}

// read takes what one system call gives; with TLS, all that is there, since of what TLS has taken
// the kernel tells no more.
func (l *loop) read(c *conn) {
	for l.readOnce(c) && c.tls != nil && c.fd >= 0 {
	}
}

// readOnce reports whether something was read.
func (l *loop) readOnce(c *conn) bool {
	had := copy(l.buf, c.in)
	var n int
	var err error
	if c.tls == nil {
		n, err = unix.Read(int(c.fd), l.buf[had:])
	} else if n, err = c.tls.tls.Read(l.buf[had:]); n > 0 || errors.Is(err, io.EOF) {
		err = nil
	}
	l.counts.reads++
	if err != nil {
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) || errors.Is(err, socket.ErrAgain) {
			return false
		}
		if c.state != connLeaving {
			l.fail("connection %d: read: %v", c.number, err)
		}
		l.drop(c)
		return false
	}
	if n <= 0 {
		if c.state != connLeaving {
			l.fail("connection %d: closed by the server", c.number)
		}
		l.drop(c)
		return false
	}
	l.now = l.e.now()
	data := l.buf[:had+n]
	if c.state == connUpgrading {
		data = l.upgraded(c, data)
	}
	if c.state > connUpgrading {
		data = l.frames(c, data)
	}
	if c.fd < 0 {
		return false
	}
	c.in = append(c.in[:0], data...)
	if len(c.in) == len(l.buf) {
		l.buf = make([]byte, 2*len(l.buf))
	}
	return true
}

// frames handles the whole frames of data and returns the rest.
func (l *loop) frames(c *conn, data []byte) []byte {
	for {
		h, size, err := socket.ParseHeader(data)
		if err != nil || h.Masked || h.Rsv != 0 || h.Length > 16<<20 {
			l.fail("connection %d: bad frame header %.8x: %v", c.number, data, err)
			l.drop(c)
			return nil
		}
		if size == 0 || len(data)-size < int(h.Length) {
			return data
		}
		total := size + int(h.Length)
		payload := data[size:total]
		switch {
		case h.Opcode.Control():
			l.control(c, h.Opcode, payload)
		case h.Fin && h.Opcode != socket.OpContinuation:
			l.message(c, payload, total)
		default:
			c.joined = append(c.joined, payload...)
			if h.Fin {
				l.message(c, c.joined, len(c.joined))
				c.joined = nil
			}
		}
		if c.fd < 0 {
			return nil
		}
		data = data[total:]
	}
}

func (l *loop) control(c *conn, op socket.Opcode, payload []byte) {
	switch op {
	case socket.OpPing:
		l.counts.pings++
		c.out = socket.AppendMaskedFrame(c.out, socket.OpPong, payload, clientKey)
		l.touch(c)
	case socket.OpClose:
		if c.state != connLeaving {
			code, reason, _ := socket.ParseClose(payload)
			l.fail("connection %d: closed by the server: %d %s", c.number, code, reason)
			c.out = socket.AppendMaskedFrame(c.out, socket.OpClose, payload, clientKey)
			l.write(c)
		}
		l.drop(c)
	}
}

// message handles a whole message that came in a frame of so many bytes.
func (l *loop) message(c *conn, payload []byte, bytes int) {
	m, rest, found, ok := findMarker(payload)
	if !found {
		l.handle(c, l.dialect.read(payload))
		return
	}
	l.counts.frameBytes += uint64(bytes)
	for found {
		l.counts.frames++
		if !ok || !l.delivered(c, &m, rest) {
			l.counts.strays++
			l.remember("connection %d in room %d: stray or damaged delivery %.160q", c.number, c.room.id, payload)
		}
		m, rest, found, ok = findMarker(rest)
	}
}

// delivered verifies one delivery; false is one that should not be here.
func (l *loop) delivered(c *conn, m *marker, rest []byte) bool {
	r := c.room
	if m.run != l.e.run || int(m.room) != r.id || int(m.publisher) >= len(r.publishers) || !complete(rest, r.payload) {
		return false
	}
	group := &l.e.spec.groups[r.group]
	if group.acks || (c.pub != nil && c.pub.index == int(m.publisher) && !l.e.spec.echo) {
		return false
	}
	if m.seq == 0 || m.seq > r.publishers[m.publisher].seq {
		return false // never sent
	}
	if !r.track.saw(int(c.member), int(m.publisher), m.seq) {
		return true // counted as a duplicate
	}
	s := l.groups[r.group]
	s.latency.record(time.Duration(l.now - m.intended))
	s.last = l.now
	l.progress = l.now
	l.outstanding--
	l.done.Add(1)
	if int(m.slot) < len(r.slots) {
		if r.slots[m.slot]--; r.slots[m.slot] == 0 {
			r.free = append(r.free, m.slot)
			l.refill(r)
		}
	}
	return true
}

func (l *loop) handle(c *conn, e event) {
	switch e.kind {
	case eventConnected:
		if c.state == connOpening {
			if !l.e.spec.join {
				l.isReady(c)
				return
			}
			c.out = l.dialect.join(c.out, c.room.channel)
			l.touch(c)
		}
	case eventJoined:
		l.isReady(c)
	case eventAck:
		l.acknowledged(c, e)
	case eventError:
		l.fail("connection %d: %s", c.number, e.text)
	case eventLeft:
		l.drop(c)
	}
}

func (l *loop) acknowledged(c *conn, e event) {
	p := c.pub
	if p == nil || e.serial != p.acked || e.count < 1 || e.serial+e.count > p.serial {
		l.counts.badAcks++
		l.remember("connection %d: ACK of %d publishes from %d on is not the next that is awaited", c.number, e.count, e.serial)
		return
	}
	s := l.groups[c.room.group]
	s.acks += uint64(e.count)
	l.outstanding -= e.count
	if l.e.spec.groups[c.room.group].acks {
		l.done.Add(uint64(e.count))
	}
	l.progress = l.now
	for range e.count {
		if l.e.spec.groups[c.room.group].acks {
			s.latency.record(time.Duration(l.now - p.sent[p.acked%int64(len(p.sent))]))
			s.last = l.now
		}
		p.acked++
		if l.publishing && l.e.spec.groups[c.room.group].acks {
			l.send(p, 0, l.now)
		}
	}
}

// refill publishes into the free slots of a room, when there is a whole batch of them.
func (l *loop) refill(r *room) {
	batch := max(l.e.spec.groups[r.group].batch, 1)
	for l.publishing && len(r.free) >= batch {
		for range batch {
			slot := r.free[len(r.free)-1]
			r.free = r.free[:len(r.free)-1]
			r.slots[slot] = uint32(l.e.receivers(r))
			// A batch is one publisher's, so that it is one write.
			p := r.publishers[r.next%len(r.publishers)]
			l.send(p, slot, l.now)
		}
		r.next++
	}
}

// send publishes p's next message, which was to be sent at intended.
func (l *loop) send(p *publisher, slot uint32, intended int64) {
	c := p.conn
	if c.fd < 0 {
		return
	}
	r := c.room
	p.seq++
	l.payload = appendPayload(l.payload[:0], &marker{
		run: l.e.run, room: uint32(r.id), publisher: uint32(p.index), slot: slot, seq: p.seq, intended: intended,
	}, r.payload)
	p.sent[p.serial%int64(len(p.sent))] = intended
	c.out = l.dialect.publish(c.out, r.channel, p.serial, l.payload)
	p.serial++
	l.touch(c)
	s := l.groups[r.group]
	s.published++
	n := l.e.receivers(r)
	s.expected += uint64(n)
	l.outstanding += int64(n)
	if l.dialect.answers() {
		l.outstanding++
	}
	l.lag = max(l.lag, time.Duration(l.now-intended))
	if l.quota > 0 {
		if l.quota = max(l.quota-int64(n), 0); l.quota == 0 {
			l.publishing, l.end = false, l.now
		}
	}
}

// publishDue sends what the open loops have due and returns when the next is, or zero.
func (l *loop) publishDue() int64 {
	next := int64(0)
	if !l.publishing {
		return next
	}
	for _, s := range l.groups {
		if s.interval == 0 || len(s.turns) == 0 {
			continue
		}
		for {
			at := s.start + int64(float64(s.sent)*s.interval)
			if at >= l.end {
				break
			}
			if at > l.now {
				if next == 0 || at < next {
					next = at
				}
				break
			}
			l.send(s.turns[s.sent%int64(len(s.turns))], noSlot, at)
			s.sent++
		}
	}
	return next
}

// publishFor publishes from start on for d, then waits for all that is under way. Nothing coming
// for the timeout ends the wait, and what is missing is lost.
func (l *loop) publishFor(start int64, d time.Duration) error {
	for g, group := range l.e.spec.groups {
		s := l.groups[g]
		s.interval = 0
		if group.rate > 0 && len(s.turns) > 0 {
			share := float64(len(s.turns)) / float64(group.rooms*group.publishers)
			s.interval = 1e9 / (group.rate * share)
			s.start, s.sent = start, 0
		}
	}
	end := start + int64(d)
	return l.drain(end, func() {
		for _, r := range l.rooms {
			group := &l.e.spec.groups[r.group]
			switch {
			case group.acks:
				for _, p := range r.publishers {
					for range group.inflight {
						l.send(p, noSlot, l.now)
					}
				}
			case group.rate == 0 && len(r.publishers) > 0:
				l.refill(r)
			}
		}
	})
}

func (l *loop) drain(end int64, start func()) error {
	started := false
	err := l.spin(func() bool {
		if !started {
			started, l.publishing, l.progress, l.end = true, true, l.now, end
			start()
			l.flush()
			return false
		}
		if l.publishing {
			if l.now >= l.end {
				l.publishing = false
			} else if l.now-l.progress > int64(l.e.spec.timeout) && l.outstanding > l.givenUp {
				l.publishing = false
				l.remember("nothing came for %v, with %d deliveries and acknowledgements missing", l.e.spec.timeout, l.outstanding)
				return true
			}
			return false
		}
		// Stay a little longer than the last delivery: a second copy would come now.
		idle := l.now - max(l.progress, l.end)
		return (l.outstanding <= l.givenUp && idle > int64(50*time.Millisecond)) || idle > int64(l.e.spec.timeout)
	})
	l.givenUp = l.outstanding
	l.publishing = false
	return err
}

// talk publishes n messages on every connection that is a publisher, in turn.
func (l *loop) talk(n int, rate float64) error {
	s := l.groups[0]
	s.turns = s.turns[:0]
	for _, c := range l.conns {
		if c.pub != nil {
			s.turns = append(s.turns, c.pub)
		}
	}
	d := time.Duration(float64(n*len(s.turns)) / rate * 1e9)
	s.interval, s.start, s.sent = 1e9/rate, l.e.now(), 0
	return l.drain(s.start+int64(d), func() {})
}

func (l *loop) touch(c *conn) {
	if !c.isOut {
		c.isOut = true
		l.dirty = append(l.dirty, c)
	}
}

func (l *loop) flush() {
	for _, c := range l.dirty {
		c.isOut = false
		if c.fd >= 0 && !c.wants {
			l.write(c)
		}
	}
	l.dirty = l.dirty[:0]
}

// write sends what is queued and asks for EPOLLOUT if the socket does not take it all.
func (l *loop) write(c *conn) {
	out := &c.out
	if c.tls != nil {
		if len(c.out) > 0 {
			if _, err := c.tls.tls.Write(c.out); err != nil {
				l.fail("connection %d: encrypt: %v", c.number, err)
				l.drop(c)
				return
			}
			c.out = c.out[:0]
		}
		out = &c.tls.link.out
	}
	for len(*out) > 0 {
		n, err := unix.Write(int(c.fd), *out)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			if c.state != connLeaving {
				l.fail("connection %d: write: %v", c.number, err)
			}
			l.drop(c)
			return
		}
		*out = (*out)[:copy(*out, (*out)[n:])]
	}
	wants := len(*out) > 0
	if !wants && c.pub == nil {
		c.out, *out = nil, nil
	}
	if wants != c.wants {
		c.wants = wants
		events := uint32(unix.EPOLLIN)
		if wants {
			events |= unix.EPOLLOUT
		}
		if err := unix.EpollCtl(l.pollOf(c), unix.EPOLL_CTL_MOD, int(c.fd), &unix.EpollEvent{Events: events, Fd: c.number}); err != nil {
			l.fail("connection %d: change what to wait for: %v", c.number, err)
		}
	}
}

// leave asks the server to forget the connections and closes them.
func (l *loop) leave() error {
	if l.poll < 0 {
		return nil
	}
	l.publishing = false
	for _, c := range l.conns {
		if c.fd < 0 {
			continue
		}
		if c.state < connOpening || l.dialect.target(0) == "" {
			l.drop(c)
			continue
		}
		c.state = connLeaving
		c.out = l.dialect.leave(c.out)
		c.out = socket.AppendMaskedFrame(c.out, socket.OpClose, []byte{socket.CloseNormal >> 8, socket.CloseNormal & 0xFF}, clientKey)
		l.touch(c)
	}
	return l.spin(func() bool { return l.open == 0 })
}

func (l *loop) drop(c *conn) {
	if c.fd < 0 {
		return
	}
	unix.Close(int(c.fd))
	switch c.state {
	case connDialing, connUpgrading, connOpening:
		l.opening--
	}
	c.fd, c.state, c.in, c.out, c.joined, c.tls = -1, connClosed, nil, nil, nil, nil
	l.open--
}
