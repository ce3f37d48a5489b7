package letshare

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"letshare-server/internal/auth"
	"letshare-server/internal/guard"
	"letshare-server/internal/hub"
	"letshare-server/internal/outbox"
	"letshare-server/internal/pubsub"
	"letshare-server/internal/socket"
	"letshare-server/internal/throttle"
	"letshare-server/internal/wsconn"
)

// maxMessageBytes bounds a message of a client, all its fragments together.
const maxMessageBytes = 512 << 10

// Options configure a Door. Hub, Auth, Poller and Wheel are required.
type Options struct {
	Hub     *hub.Hub
	Auth    *auth.LetShare
	Poller  *socket.Poller
	Wheel   *socket.Wheel
	Outbox  outbox.Options
	Proxies auth.TrustedProxies

	// MaxRoomUsers bounds the connections in a room, those of other doors included. Zero
	// means no bound.
	MaxRoomUsers int

	// PingInterval is after how much silence a peer is pinged, and IdleTimeout after how
	// much it is given up. Zero means 25 s and 70 s.
	PingInterval, IdleTimeout time.Duration

	// WildcardEvents gives those who subscribed to signal:all every event of the room, as
	// the original server did. Otherwise an event reaches exactly its subscribers.
	WildcardEvents bool

	Guard   *guard.Guard // is told how authentications end; nil: nobody is
	Metrics Metrics
	Log     *slog.Logger // nil discards
}

// Metrics is what the door reports.
type Metrics interface {
	LetShareOpened()
	LetShareClosed(end wsconn.End)
	Refused(reason string)
}

// Door is the endpoint of LetShare's protocol.
type Door struct {
	opts   Options
	server *wsconn.Server
	noisy  *throttle.Warnings // about clients' mistakes

	mu      sync.Mutex
	members map[*member]struct{}
}

// New returns the endpoint. It starts nothing.
func New(opts Options) *Door {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Door{
		opts:    opts,
		noisy:   throttle.New(opts.Log),
		members: make(map[*member]struct{}),
		server: wsconn.NewServer(opts.Poller, opts.Wheel, wsconn.Settings{
			// The door answers invalid UTF-8 itself, and the connection goes on.
			Assembler:    socket.AssemblerOptions{MaxMessageBytes: maxMessageBytes, AllowInvalidUTF8: true},
			Outbox:       opts.Outbox,
			PingInterval: opts.PingInterval,
			PongTimeout:  opts.IdleTimeout,
		}),
	}
}

// ServeHTTP checks the token, which must be in the URL, and upgrades: 401 with a JSON body,
// then 400 (the origin was checked before).
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	claims, grant, err := d.opts.Auth.Authenticate(param(r.URL.RawQuery, "token"))
	d.opts.Guard.Authenticated(r.Context(), d.opts.Proxies.Peer(r).Addr, err)
	if err == nil {
		var refused *pubsub.Error
		if grant, refused = grant.ForPeer(d.opts.Proxies.Peer(r)); refused != nil {
			err = pubsub.NewError(refused.Code, "token验证失败: 默认密钥只能在本机或内网使用")
		}
	}
	if err != nil {
		d.refuse(w, r, err)
		return
	}
	instance := param(r.URL.RawQuery, "userId")
	if instance == "" {
		instance = claims.UserID
	}
	if r.Header.Get("Upgrade") != "" && r.Header.Get("Sec-WebSocket-Version") != "13" {
		// socket.Upgrade would say 426; to this door's clients every bad upgrade is 400.
		w.Header().Set("Sec-WebSocket-Version", "13")
		d.opts.Metrics.Refused("upgrade")
		http.Error(w, "Sec-WebSocket-Version is not 13", http.StatusBadRequest)
		return
	}
	opening, err := socket.Upgrade(w, r)
	if err != nil {
		d.opts.Metrics.Refused("upgrade")
		d.opts.Log.Debug("upgrade refused", "error", err)
		return
	}
	m := &member{door: d, grant: grant, instance: instance, id: newConnectionID()}
	if d.opts.Auth.EnforceRoom {
		m.onlyRoom = claims.RoomID
	}
	if _, err := d.server.Serve(opening, m); err != nil {
		d.opts.Log.Warn("connection not served", "error", err)
	}
}

func (d *Door) refuse(w http.ResponseWriter, r *http.Request, err error) {
	d.opts.Metrics.Refused("token")
	d.noisy.Warn("connection refused", "error", err.Error(), "peer", d.opts.Proxies.Peer(r).Addr.String())
	body, _ := json.Marshal(map[string]string{"error": pubsub.ErrorFor(err).Message}) // cannot fail
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = w.Write(body) // the peer is gone if this fails
}

func newConnectionID() string {
	var b [9]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Recheck closes the connections whose token is revoked.
func (d *Door) Recheck() {
	d.mu.Lock()
	all := make([]*member, 0, len(d.members))
	for m := range d.members {
		all = append(all, m)
	}
	d.mu.Unlock()
	for _, m := range all {
		m.recheck()
	}
}

// Member is a connection of the door.
type Member interface {
	// Drain closes the connection because the server stops.
	Drain()
}

// Members returns the connections that are open now.
func (d *Door) Members() []Member {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]Member, 0, len(d.members))
	for m := range d.members {
		all = append(all, m)
	}
	return all
}
