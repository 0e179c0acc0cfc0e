// Google's own fake of Pub/Sub, as a server that prints its address.
package main

import (
	"fmt"
	"io"
	"os"

	"cloud.google.com/go/pubsub/v2/pstest"
)

func main() {
	server := pstest.NewServer()
	fmt.Println(server.Addr)
	io.Copy(io.Discard, os.Stdin) // until the test ends
	server.Close()
}
