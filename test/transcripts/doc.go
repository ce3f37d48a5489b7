// Package transcripts plays golden conversations with the server, one per file, over a real
// WebSocket in both formats, and over comet, streamed and polled. The conversations are the
// wire contract: "go test -update" rewrites what the server said, and the difference is
// reviewed as code.
//
// A file begins with what it is about, and continues with what is said, in order:
//
//	# publish-ack: a publish is acknowledged with its serial (RTN7a); connect: echo=false
//	# 2: connect: echo=true
//	# token short: {"ttl":2,"clientId":"bob","capability":{"*":["subscribe"]}}
//	C  {"action":15,"channel":"orders","msgSerial":0,"messages":[{"name":"new","data":"1"}]}
//	S  {"action":1,"msgSerial":0,"count":1,"res":[{"serials":["<first>"]}]}
//
// The first line names the file and gives the URL parameters of its client; without key or
// access_token the server's key is used, key=<wide> is one that may do everything everywhere,
// and without v it is the newest version. More clients are numbered from 2, connect at the
// beginning too, and speak in lines C2 and S2. A token line mints a JWT that lives for ttl
// seconds, for use as <short>; "claims" are further ones. A line "# limits: setting=number" gives settings of the
// server's limits, separated by spaces, as in "channels_per_connection=1"; a line
// "# namespaces: [{id: kept, persisted: true}]" gives the rules of its namespaces.
//
//	C   the client sends this
//	C+  the same, but together with the client's next line, in one write
//	C~  the client sends these bytes, whatever they are
//	S   the server's next frame is this; an ACK may also come behind messages and presence that
//	    follow it here, since another goroutine may deliver to the channel at that moment
//	X   the server closes the WebSocket with this code, or ends the comet transport
//	!   something happens: "drain" stops the server, "wait" says that time passes, "cut 1"
//	    takes client 1 its socket, "connect 2" connects client 2, which had not been, and
//	    "namespaces [{id: kept}]" has the server load other rules
//
// Words in angle brackets stand for values: <any> for anything, another word for the value
// that it had first, in this file, and <pad N> in what is sent for N letters. connectionId
// and connectionKey are bound by every CONNECTED (connectionId2 for client 2). A client
// whose first line is no S is connected silently. At the end every client that is still
// connected must have got nothing beyond what the file says.
//
// Over comet, lines that are sent together are one body, and the error that a connect is
// answered with stands for an ERROR, as it does for SDKs.
//
// Conversations are written in JSON. In MessagePack the same is said, with data whose
// encoding ends with base64 as bytes.
package transcripts
