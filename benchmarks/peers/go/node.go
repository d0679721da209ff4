// Node: a libp2p host as it comes, but with one security protocol, and without
// limits and services that have nothing to do with what is measured.

package main

import (
	"encoding/binary"
	"io"
	"log"
	"os"
	"runtime/debug"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	tls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
)

const (
	echoProtocol   = protocol.ID("/p2pnet/echo/1.0.0")
	sinkProtocol   = protocol.ID("/p2pnet/bench/sink/1.0.0")
	sourceProtocol = protocol.ID("/p2pnet/bench/source/1.0.0")
	blockBytes     = 256 << 10
)

func newNode() (host.Host, error) {
	options := []libp2p.Option{
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Transport(websocket.New),
		libp2p.Transport(quic.NewTransport),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.ConnectionManager(&connmgr.NullConnMgr{}),
		libp2p.DisableMetrics(),
		libp2p.DisableRelay(),
		libp2p.ForceReachabilityPublic(), // else it would ask around
	}
	if os.Getenv("SECURITY") == "tls" {
		options = append(options, libp2p.Security(tls.ID, tls.New))
	} else {
		options = append(options, libp2p.Security(noise.ID, noise.New))
	}
	if os.Getenv("ROLE") == "serve" {
		options = append(options, libp2p.ListenAddrStrings(os.Getenv("LISTEN")))
	} else {
		options = append(options, libp2p.NoListenAddrs)
	}
	node, err := libp2p.New(options...)
	if err != nil {
		return nil, err
	}
	handle(node, echoProtocol, serveEcho)
	handle(node, sinkProtocol, serveSink)
	handle(node, sourceProtocol, serveSource)
	return node, nil
}

func handle(node host.Host, id protocol.ID, serve func(network.Stream) error) {
	node.SetStreamHandler(id, func(stream network.Stream) {
		if err := serve(stream); err != nil {
			log.Printf("%s broke off: %v", id, err)
			stream.Reset()
			return
		}
		stream.Close()
	})
}

func serveEcho(stream network.Stream) error {
	// Hide other methods, so that CopyBuffer uses this buffer.
	_, err := io.CopyBuffer(struct{ io.Writer }{stream}, struct{ io.Reader }{stream}, make([]byte, 64<<10))
	return err
}

func serveSink(stream network.Stream) error {
	total, err := drain(stream)
	if err != nil {
		return err
	}
	return binary.Write(stream, binary.BigEndian, total)
}

func serveSource(stream network.Stream) error {
	var wanted uint64
	if err := binary.Read(stream, binary.BigEndian, &wanted); err != nil {
		return err
	}
	return sendZeros(stream, int(wanted))
}

func drain(stream network.Stream) (uint64, error) {
	count, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{stream}, make([]byte, blockBytes))
	return uint64(count), err
}

var block = make([]byte, blockBytes)

func sendZeros(stream network.Stream, count int) error {
	for count > 0 {
		size := min(count, blockBytes)
		if _, err := stream.Write(block[:size]); err != nil {
			return err
		}
		count -= size
	}
	return nil
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == "github.com/libp2p/go-libp2p" {
				return module.Version
			}
		}
	}
	return "unknown"
}
