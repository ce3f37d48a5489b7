package control

import "net/http"

type me struct {
	Token   meToken   `json:"token"`
	User    meUser    `json:"user"`
	Account meAccount `json:"account"`
}

type meToken struct {
	ID           string   `json:"id"`
	Name         string   `json:"name"`
	Capabilities []string `json:"capabilities"`
	ExpiresAt    *string  `json:"expires_at"`   // null: never
	LastUsedAt   *string  `json:"last_used_at"` // null: nobody knows
}

type meUser struct {
	ID    int    `json:"id"`
	Email string `json:"email"`
}

type meAccount struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// me answers GET /me: whose token it is, and which account to ask for apps.
func (a *API) me(c *call) (*answer, error) {
	capabilities := []string{"read:app", "write:app", "read:key", "write:key", "read:namespace", "write:namespace"}
	return &answer{status: http.StatusOK, body: me{
		Token:   meToken{ID: c.by.name, Name: c.by.name, Capabilities: capabilities},
		User:    meUser{ID: 1, Email: "admin@letshare.invalid"},
		Account: meAccount{ID: account, Name: "LetShare Server"},
	}}, nil
}
