// Echo: /p2pnet/echo/1.0.0, both sides. The server writes back what it reads
// and half-closes after the sender did; the client compares digests.

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"log"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const (
	echoProtocol = protocol.ID("/p2pnet/echo/1.0.0")
	echoChunk    = 64 << 10
)

func serveEcho(stream network.Stream) {
	count, err := io.CopyBuffer(onlyWriter{stream}, onlyReader{stream}, make([]byte, echoChunk))
	if err == nil {
		err = stream.Close() // reading has ended, so this closes the writing side
	}
	if err != nil {
		log.Printf("echo to %s broke off after %d bytes: %v", stream.Conn().RemotePeer(), count, err)
		stream.Reset()
	}
}

// onlyReader and onlyWriter hide other methods, so that CopyBuffer uses its buffer.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// echo sends size random bytes while it reads them back to the end, and returns
// how many came back. Any difference is an error.
func echo(ctx context.Context, conn network.Conn, size int64) (int64, error) {
	stream, err := openStream(ctx, conn, echoProtocol)
	if err != nil {
		return 0, fmt.Errorf("opening the echo stream: %w", err)
	}
	defer context.AfterFunc(ctx, func() { stream.Reset() })()

	sent := sha256.New()
	sending := make(chan error, 1)
	go func() {
		random := io.TeeReader(io.LimitReader(rand.Reader, size), sent)
		_, err := io.CopyBuffer(onlyWriter{stream}, random, make([]byte, echoChunk))
		if err == nil {
			err = stream.CloseWrite()
		}
		sending <- err
	}()

	received := sha256.New()
	count, err := io.CopyBuffer(received, onlyReader{stream}, make([]byte, echoChunk))
	if err != nil {
		stream.Reset() // also ends the sending
		return count, fmt.Errorf("echo: reading stopped after %d of %d bytes: %w", count, size, err)
	}
	if err := <-sending; err != nil {
		stream.Reset()
		return count, fmt.Errorf("echo: sending %d bytes: %w", size, err)
	}
	stream.Close()
	if count != size || !bytes.Equal(sent.Sum(nil), received.Sum(nil)) {
		return count, fmt.Errorf("echo: sent %d bytes, %d other bytes came back", size, count)
	}
	return count, nil
}
