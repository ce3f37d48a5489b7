// Package letshare is LetShare's own JSON protocol at /ws: the door through which the
// file-sharing app's browsers meet in rooms. A room is the channel of the default app with
// the same name, an event is a message's name, so that both dialects share one room.
//
// Every frame is one JSON object. A client sends
//
//	{"type":"subscribe",  "channel":room, "event":event}
//	{"type":"unsubscribe","channel":room, "event":event}
//	{"type":"publish",    "channel":room, "event":event, "data":{…}}
//
// where event is "signal:all" when it is missing, and is sent
//
//	{"type":"subscribed",  "channel":…,"event":…,"data":{"room":…,"event":…,"status":…},"timestamp":ms}
//	{"type":"unsubscribed","channel":…,"event":…,"data":{"room":…,"event":…,"status":…},"timestamp":ms}
//	{"type":"message",     "channel":…,"event":…,"data":{…},"timestamp":ms}
//	{"type":"error",       "error":{"code":400,"message":…,"reason":…},"timestamp":ms}
//
// A publish is not acknowledged. Data is passed on as it was written, with "from" added at
// its end when it has none. The texts of errors are shown to the app's users as they are;
// reason is for machines.
//
// Requests of one connection run in their order on the connection's worker; messages come
// from the hub on any goroutine.
package letshare
