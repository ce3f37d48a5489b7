module letshare-server/test/sdk/go

go 1.26.0

require (
	github.com/ably/ably-go v1.4.1
	github.com/golang-jwt/jwt/v5 v5.3.1
)

require (
	github.com/ably/vcdiff-go v0.0.2 // indirect
	github.com/coder/websocket v1.8.12 // indirect
	github.com/ugorji/go/codec v1.1.9 // indirect
	golang.org/x/sys v0.2.0 // indirect
)
