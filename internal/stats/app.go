package stats

import (
	"sync"
	"sync/atomic"
	"time"
)

// The places of an App's counters.
const (
	placeTraffic   = 0                 // inbound: by transport, type and figure
	placeOutbound  = placeTraffic + 16 // outbound: the same
	placePersisted = placeOutbound + 16
	placeRequests  = placePersisted + 4
	placeOpened    = placeRequests + 6
	places         = placeOpened + 4
)

// The figures that are counted of messages, in the order of their places.
var counted = [...]int{count, data, failed, refused}

// metricAt says which metric is counted at each place.
var metricAt = func() (at [places]Metric) {
	for tr := range 2 {
		for typ := range 2 {
			for f, figure := range counted {
				at[placeTraffic+tr*8+typ*4+f] = traffic(inbound, Transport(tr+1), Type(typ+1), figure)
				at[placeOutbound+tr*8+typ*4+f] = traffic(outbound, Transport(tr+1), Type(typ+1), figure)
			}
		}
	}
	for typ := range 2 {
		at[placePersisted+typ*2] = persisted(Type(typ+1), count)
		at[placePersisted+typ*2+1] = persisted(Type(typ+1), data)
	}
	for o := range requestOutcomes {
		at[placeRequests+o] = request(requestsOther, o)
		at[placeRequests+3+o] = request(requestsToken, o)
	}
	at[placeOpened] = resource(connectionsAll, opened)
	at[placeOpened+1] = resource(connectionsAll, resourceRefused)
	at[placeOpened+2] = resource(channels, opened)
	at[placeOpened+3] = resource(channels, resourceRefused)
	return at
}()

// App counts for one app. All methods may be called from any goroutine, and on nil, which
// counts nothing. None waits for anything but an atomic operation or, where connections and
// channels come and go, a lock that is held for nothing else.
type App struct {
	id string
	n  [places]atomic.Int64

	connections, channels gauge

	// collecting guards the fields below. The locks of the gauges and the Store's are taken
	// under it.
	collecting sync.Mutex
	since      time.Time // when collecting began
	unsaved    *Totals   // what the store has not taken, of the minute
	minute     Interval
}

func place(base int, tr Transport, t Type) int { return base + int(tr-1)*8 + int(t-1)*4 }

// Published counts messages, and their bytes, that were accepted from a publisher.
func (a *App) Published(tr Transport, t Type, messages, bytes int) {
	if a == nil {
		return
	}
	p := place(placeTraffic, tr, t)
	a.n[p].Add(int64(messages))
	a.n[p+1].Add(int64(bytes))
}

// Failed counts messages that could not be published for a reason of the server's.
func (a *App) Failed(tr Transport, t Type, messages int) {
	if a != nil {
		a.n[place(placeTraffic, tr, t)+2].Add(int64(messages))
	}
}

// Refused counts messages that the publisher may not, or cannot, publish.
func (a *App) Refused(tr Transport, t Type, messages int) {
	if a != nil {
		a.n[place(placeTraffic, tr, t)+3].Add(int64(messages))
	}
}

// Delivered counts messages, and their bytes, that were handed to receivers, once for each.
func (a *App) Delivered(tr Transport, t Type, messages, bytes int) {
	if a == nil || messages == 0 {
		return
	}
	p := place(placeOutbound, tr, t)
	a.n[p].Add(int64(messages))
	a.n[p+1].Add(int64(bytes))
}

// Persisted counts messages, and their bytes, that were stored for longer than others.
func (a *App) Persisted(t Type, messages, bytes int) {
	if a == nil {
		return
	}
	p := placePersisted + int(t-1)*2
	a.n[p].Add(int64(messages))
	a.n[p+1].Add(int64(bytes))
}

// ConnectionOpened counts a new connection, and that there is one more now.
func (a *App) ConnectionOpened() {
	if a != nil {
		a.n[placeOpened].Add(1)
		a.connections.add(1)
	}
}

// ConnectionResumed counts that there is one more now, which is not new.
func (a *App) ConnectionResumed() {
	if a != nil {
		a.connections.add(1)
	}
}

// ConnectionClosed counts that there is one less.
func (a *App) ConnectionClosed() {
	if a != nil {
		a.connections.add(-1)
	}
}

// ConnectionRefused counts a connection whose credentials are good and that did not get in.
func (a *App) ConnectionRefused() {
	if a != nil {
		a.n[placeOpened+1].Add(1)
	}
}

// ChannelOpened counts a channel that has its first attachment.
func (a *App) ChannelOpened() {
	if a != nil {
		a.n[placeOpened+2].Add(1)
		a.channels.add(1)
	}
}

// ChannelClosed counts a channel that has lost its last attachment.
func (a *App) ChannelClosed() {
	if a != nil {
		a.channels.add(-1)
	}
}

// ChannelRefused counts a channel above the number that the app may have.
func (a *App) ChannelRefused() {
	if a != nil {
		a.n[placeOpened+3].Add(1)
	}
}

// Outcome is what became of a request.
type Outcome uint8

// The outcomes of requests.
const (
	Succeeded      Outcome = iota
	RequestFailed          // a mistake of the client's, or an error of the server's
	RequestRefused         // a missing right, or a limit
)

// Request counts a request to the API.
func (a *App) Request(o Outcome) {
	if a != nil {
		a.n[placeRequests+int(o)].Add(1)
	}
}

// TokenRequest counts a request for a token.
func (a *App) TokenRequest(o Outcome) {
	if a != nil {
		a.n[placeRequests+3+int(o)].Add(1)
	}
}

// take returns what was counted since it was called last, which was at since. It is nil if
// nothing was.
func (a *App) take(since, now time.Time) *Totals {
	t, any := new(Totals), false
	for place := range a.n {
		if a.n[place].Load() != 0 {
			t.n[metricAt[place]] = float64(a.n[place].Swap(0))
			any = true
		}
	}
	for _, r := range []struct {
		*gauge
		resource int
	}{{&a.connections, connectionsAll}, {&a.channels, channels}} {
		highest, lowest, used := r.take(now)
		if highest == 0 {
			continue
		}
		of := t.n[resource(r.resource, 0):]
		of[peak], of[low], of[usage] = float64(highest), float64(lowest), float64(used.Milliseconds())
		of[duration] = float64(now.Sub(since).Milliseconds())
		any = true
	}
	if !any {
		return nil
	}
	return t
}

// gauge is how many of something there are.
type gauge struct {
	clock func() time.Time

	// mu guards the fields below. Nothing is called under it but the clock.
	mu      sync.Mutex
	count   int
	highest int           // since the last take
	lowest  int           // the same
	used    time.Duration // the integral of count over time, from the last take to changed
	changed time.Time
}

func (g *gauge) add(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.advanceLocked(g.clock())
	g.count += n
	g.highest, g.lowest = max(g.highest, g.count), min(g.lowest, g.count)
}

// take returns the figures since the last take.
func (g *gauge) take(now time.Time) (highest, lowest int, used time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.advanceLocked(now)
	highest, lowest, used = g.highest, g.lowest, g.used
	g.highest, g.lowest, g.used = g.count, g.count, 0
	return highest, lowest, used
}

func (g *gauge) advanceLocked(to time.Time) {
	if d := to.Sub(g.changed); d > 0 {
		g.used += time.Duration(g.count) * d
		g.changed = to
	}
}
