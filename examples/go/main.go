// Command example publishes a message to a local server and receives it.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/ably/ably-go/ably"
)

func main() {
	port, err := strconv.Atoi(cmp.Or(os.Getenv("PORT"), "8080"))
	if err != nil {
		log.Fatal(err)
	}
	client, err := ably.NewRealtime(
		ably.WithKey("letshr.local0:letshare-local-key-published-do-not-deploy"), // printed by the server
		ably.WithEndpoint("localhost"),
		ably.WithPort(port),
		ably.WithTLS(false),
		ably.WithInsecureAllowBasicAuthWithoutTLS(),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	channel := client.Channels.Get("demo")
	received := make(chan *ably.Message, 1)
	if _, err := channel.Subscribe(ctx, "greeting", func(m *ably.Message) { received <- m }); err != nil {
		log.Fatal(err)
	}
	if err := channel.Publish(ctx, "greeting", "hello from Go"); err != nil {
		log.Fatal(err)
	}
	m := <-received
	fmt.Println(m.Name, m.Data)
}
