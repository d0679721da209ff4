// AutoNAT: the dialer's role with AUTONAT=v1-client or v2-client. Connect to
// each target, wait until enough is known of our own addresses, and one line.

package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/autonat"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	v1Client = "v1-client"
	v1Server = "v1-server"
	v2Client = "v2-client"
	v2Server = "v2-server"
)

// lesson is what became known of one address. AutoNAT v1 speaks of the whole
// host, so that there is none.
type lesson struct {
	Address      *string `json:"address"`
	Reachability string  `json:"reachability"`
	Protocol     string  `json:"protocol"`
}

// schooling is the line of an AutoNAT client.
type schooling struct {
	PeerID string   `json:"peer_id"`
	Learnt []lesson `json:"learnt"`
	Error  *string  `json:"error"`
}

// autoNATOptions leaves the reachability open only to a client of version 1:
// whatever is forced keeps that one from asking, and lets a server serve. One of
// version 2 refuses to dial UDP until its host has dialled so much of it that it
// knows no firewall to be in the way; nobody here dials so much.
func autoNATOptions(role string) []libp2p.Option {
	switch role {
	case v1Client:
		return nil
	case v1Server:
		return []libp2p.Option{libp2p.ForceReachabilityPublic(), libp2p.EnableNATService()}
	}
	return []libp2p.Option{libp2p.ForceReachabilityPublic(), libp2p.EnableAutoNATv2(),
		libp2p.UDPBlackHoleSuccessCounter(nil)}
}

func runAutoNATClient(s settings, invalid error) error {
	line := schooling{Learnt: []lesson{}}
	failure := invalid
	if failure == nil {
		failure = line.fill(s)
	}
	if failure != nil {
		text := failure.Error()
		line.Error = &text
	}
	return errors.Join(failure, printLine(line))
}

func (l *schooling) fill(s settings) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	node, err := newNode(s)
	if err != nil {
		return err
	}
	defer node.Close()
	l.PeerID = node.ID().String()
	changes, err := node.EventBus().Subscribe(
		[]any{new(event.EvtLocalReachabilityChanged), new(event.EvtHostReachableAddrsChanged)})
	if err != nil {
		return err
	}
	defer changes.Close()
	if err := connectAll(ctx, node, s.targets); err != nil {
		return err
	}
	for len(l.Learnt) < s.verdicts {
		select {
		case change := <-changes.Out():
			l.learn(s.autoNAT, change)
		case <-ctx.Done():
			return fmt.Errorf("only %d of %d verdicts: %w", len(l.Learnt), s.verdicts, ctx.Err())
		}
	}
	return nil
}

func connectAll(ctx context.Context, node host.Host, targets []ma.Multiaddr) error {
	for _, target := range targets {
		server, err := peer.AddrInfoFromP2pAddr(target)
		if err != nil {
			return fmt.Errorf("TARGET: %w", err)
		}
		if err := node.Connect(ctx, *server); err != nil {
			return err
		}
	}
	return nil
}

// learn takes what the client of the version that was asked for concluded.
func (l *schooling) learn(role string, change any) {
	log.Printf("%T%+v", change, change)
	switch e := change.(type) {
	case event.EvtLocalReachabilityChanged:
		if role == v1Client && e.Reachability != network.ReachabilityUnknown {
			l.Learnt = []lesson{{nil, named(e.Reachability), string(autonat.AutoNATProto)}}
		}
	case event.EvtHostReachableAddrsChanged:
		l.Learnt = slices.Concat(
			lessons(e.Reachable, network.ReachabilityPublic),
			lessons(e.Unreachable, network.ReachabilityPrivate))
	}
}

func lessons(addresses []ma.Multiaddr, reachability network.Reachability) []lesson {
	result := make([]lesson, 0, len(addresses))
	for _, text := range texts(addresses) {
		result = append(result, lesson{&text, named(reachability), autonatv2.DialProtocol})
	}
	return result
}

func named(reachability network.Reachability) string {
	if reachability == network.ReachabilityPublic {
		return "public"
	}
	return "private"
}
