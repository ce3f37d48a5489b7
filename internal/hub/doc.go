// Package hub is the channels of this node: who is attached, and what each is sent next.
//
// A publish enters through Publish, is ordered and stored by the engine, comes back through
// Deliver (from any node, this one included) and goes to every attachment's Receiver,
// encoded once per Form.
//
// The hub knows nothing of sockets, HTTP or encodings. Publish runs on its caller's
// goroutine and Deliver on the engine's; the fan-out runs on the goroutine that ends the
// Turn, or, in rooms of more than inlineMembers, on one goroutine per busy room that lives
// until nothing is pending. Close waits for these. Run tells attachments of the occupancy of
// their channels, where they ask for it.
package hub
