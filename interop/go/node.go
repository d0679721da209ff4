// Node: the libp2p host every role runs on, and what they all ask of it: TCP,
// WebSocket, QUIC and circuits, one security protocol, yamux, echo, and no
// background service whose timing a test would have to guess.

package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log"
	"runtime/debug"
	"slices"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	tls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	ma "github.com/multiformats/go-multiaddr"
)

const libraryPath = "github.com/libp2p/go-libp2p"

func newNode(s settings) (host.Host, error) {
	options := []libp2p.Option{
		libp2p.UserAgent(agentVersion()),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Transport(websocket.New),
		libp2p.EnableRelay(), // before NoListenAddrs, which would switch circuits off
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.ConnectionManager(&connmgr.NullConnMgr{}),
		libp2p.DisableMetrics(),
	}
	if s.psk != nil {
		options = append(options, libp2p.PrivateNetwork(s.psk)) // which rules out QUIC
	} else {
		options = append(options, libp2p.Transport(quic.NewTransport))
	}
	if s.security == "tls" {
		options = append(options, libp2p.Security(tls.ID, tls.New))
	} else {
		options = append(options, libp2p.Security(noise.ID, noise.New))
	}
	if s.seed != nil {
		key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(s.seed))
		if err != nil {
			return nil, err
		}
		options = append(options, libp2p.Identity(key))
	}
	if len(s.listen) > 0 {
		options = append(options, libp2p.ListenAddrs(s.listen...))
	} else {
		options = append(options, libp2p.NoListenAddrs)
	}
	// A forced reachability also keeps the AutoNAT client from asking around.
	if s.autoNAT != "" {
		options = append(options, autoNATOptions(s.autoNAT)...)
	} else if s.holePunch {
		options = append(options, libp2p.ForceReachabilityPrivate(),
			libp2p.EnableHolePunching(holepunch.WithTracer(punchLog{})))
	} else {
		options = append(options, libp2p.ForceReachabilityPublic())
	}
	node, err := libp2p.New(options...)
	if err != nil {
		return nil, err
	}
	node.SetStreamHandler(echoProtocol, serveEcho)
	node.SetStreamHandler(perfProtocol, servePerf)
	return node, nil
}

// agentVersion names this program and the library version it was built with.
func agentVersion() string {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == libraryPath {
				version = module.Version
			}
		}
	}
	return "p2pnet-interop-go/1 go-libp2p/" + version
}

// fullAddresses lists the node's addresses, each ending in its own peer id.
func fullAddresses(node host.Host) ([]string, error) {
	addresses, err := peer.AddrInfoToP2pAddrs(host.InfoFromHost(node))
	if err != nil {
		return nil, err
	}
	return texts(addresses), nil
}

// texts never returns nil, so that JSON shows an empty list and not null.
func texts[T ~[]E, E fmt.Stringer](values T) []string {
	result := make([]string, 0, len(values))
	for _, value := range values {
		result = append(result, value.String())
	}
	return result
}

func isCircuit(address ma.Multiaddr) bool {
	_, err := address.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}

// connectRelay connects to a relay. With hole punching it also waits until
// DCUtR is served: go-libp2p starts it only once it knows a public address of
// its own, which here means once the relay has observed one; it looks 0.25,
// 0.75, 1.75 and 3.75 s after the start, then every 5 s. A circuit opened
// before that is refused by the handler and never punched later.
func connectRelay(ctx context.Context, node host.Host, relay peer.AddrInfo, punch bool) error {
	if err := node.Connect(ctx, relay); err != nil {
		return fmt.Errorf("connecting to the relay: %w", err)
	}
	if !punch {
		return nil
	}
	updates, err := node.EventBus().Subscribe(new(event.EvtLocalProtocolsUpdated))
	if err != nil {
		return err
	}
	defer updates.Close()
	for !slices.Contains(node.Mux().Protocols(), holepunch.Protocol) {
		select {
		case <-updates.Out():
		case <-ctx.Done():
			return fmt.Errorf("hole punching never started: the relay observed no public address of ours: %w", ctx.Err())
		}
	}
	return nil
}

// punchLog writes each step of a hole punch to stderr.
type punchLog struct{}

func (punchLog) Trace(step *holepunch.Event) {
	detail, err := json.Marshal(step.Evt)
	if err != nil {
		detail = []byte(err.Error())
	}
	log.Printf("hole punch with %s: %s %s", step.Remote, step.Type, detail)
}
