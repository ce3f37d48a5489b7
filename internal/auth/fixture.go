package auth

import "letshare-server/internal/pubsub"

// Fixture is a channel as a test suite wants to find it: with members who are there from
// the start and for as long as their app is.
type Fixture struct {
	Channel string

	// Members have a ClientID, and Data with its Encoding as they were posted. They have no
	// action, id, connectionId, timestamp: those are for whoever lets them enter. They are
	// shared and must not be changed.
	Members []*pubsub.PresenceMessage
}

// Fixtures are what the app was made with; apps of the configuration have none. The caller
// changes nothing.
func (a *App) Fixtures() []Fixture { return a.fixtures }
