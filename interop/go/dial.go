// Dial: the dialer's role. Connect, identify, perhaps wait for a direct
// connection, ping, echo, and one line that says how it went.

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
)

const pings = 3

var errUnidentified = errors.New("identify failed")

// report is the dialer's line. A nil pointer is something never learned.
type report struct {
	PeerID         string   `json:"peer_id"`
	RemotePeerID   string   `json:"remote_peer_id"`
	Agent          string   `json:"agent"`
	Protocols      []string `json:"protocols"`
	Observed       string   `json:"observed"`
	ListenAddrs    []string `json:"listen_addrs"`
	HandshakeMs    *float64 `json:"handshake_ms"`
	PingRTTMs      *float64 `json:"ping_rtt_ms"`
	EchoBytes      int64    `json:"echo_bytes"`
	EchoOK         bool     `json:"echo_ok"`
	PerfUploaded   int64    `json:"perf_uploaded"`
	PerfDownloaded int64    `json:"perf_downloaded"`
	Relayed        *bool    `json:"relayed"`
	Error          *string  `json:"error"`
}

func runDial(s settings, invalid error) error {
	line := report{Protocols: []string{}, ListenAddrs: []string{}}
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

// fill does the dialer's work and records each fact as it becomes known.
func (r *report) fill(s settings) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	target, err := peer.AddrInfoFromP2pAddr(s.target)
	if err != nil {
		return fmt.Errorf("TARGET: %w", err)
	}
	r.RemotePeerID = target.ID.String()
	node, err := newNode(s)
	if err != nil {
		return err
	}
	defer node.Close()
	r.PeerID = node.ID().String()

	conn, err := r.connect(ctx, node, *target, s)
	if err != nil {
		return err
	}
	best, err := bestPing(ctx, conn)
	if err != nil {
		return err
	}
	r.PingRTTMs = milliseconds(best)
	if s.perfUpload > 0 || s.perfDownload > 0 {
		if r.PerfDownloaded, err = perf(ctx, conn, s.perfUpload, s.perfDownload); err != nil {
			return err
		}
		r.PerfUploaded = s.perfUpload
	}
	if s.echoBytes == 0 {
		return nil
	}
	r.EchoBytes, err = echo(ctx, conn, s.echoBytes)
	r.EchoOK = err == nil
	return err
}

// connect returns an identified connection to the target: the first one, or
// the first direct one if the settings ask for that.
func (r *report) connect(ctx context.Context, node host.Host, target peer.AddrInfo, s settings) (network.Conn, error) {
	if s.holePunch && isCircuit(s.target) {
		if err := connectTargetsRelay(ctx, node, s.target); err != nil {
			return nil, err
		}
	}
	identified, err := node.EventBus().Subscribe(
		[]any{new(event.EvtPeerIdentificationCompleted), new(event.EvtPeerIdentificationFailed)}, eventbus.BufSize(64))
	if err != nil {
		return nil, err
	}
	defer identified.Close()

	node.Peerstore().AddAddrs(target.ID, target.Addrs, peerstore.TempAddrTTL)
	start := time.Now()
	if _, err := node.Network().DialPeer(network.WithAllowLimitedConn(ctx, "interop"), target.ID); err != nil {
		return nil, err
	}
	r.HandshakeMs = milliseconds(time.Since(start))

	anyConn := func(network.Conn) bool { return true }
	conn, err := r.identify(ctx, identified, target.ID, anyConn)
	if err != nil || s.directWait == 0 || isDirect(conn) {
		return conn, err
	}
	directCtx, cancel := context.WithTimeout(ctx, s.directWait)
	defer cancel()
	log.Printf("relayed after %s, waiting for a direct connection", time.Since(start).Round(time.Millisecond))
	conn, err = r.identify(directCtx, identified, target.ID, isDirect)
	for errors.Is(err, errUnidentified) { // perhaps a duplicate that the remote closed
		log.Print(err)
		conn, err = r.identify(directCtx, identified, target.ID, isDirect)
	}
	if err != nil {
		return nil, fmt.Errorf("no direct connection: %w", err)
	}
	log.Printf("direct after %s: %s", time.Since(start).Round(time.Millisecond), conn.RemoteMultiaddr())
	return conn, nil
}

// connectTargetsRelay connects to the relay in front of /p2p-circuit, so that
// our observed address is known before the target can start a hole punch.
func connectTargetsRelay(ctx context.Context, node host.Host, target ma.Multiaddr) error {
	before, _ := ma.SplitFunc(target, func(c ma.Component) bool { return c.Protocol().Code == ma.P_CIRCUIT })
	relay, err := peer.AddrInfoFromP2pAddr(before)
	if err != nil {
		return fmt.Errorf("TARGET's relay: %w", err)
	}
	return connectRelay(ctx, node, *relay, true)
}

// identify waits for the identification of a connection that suits, and
// records what the remote said on it.
func (r *report) identify(ctx context.Context, events event.Subscription, target peer.ID, suits func(network.Conn) bool) (network.Conn, error) {
	for {
		select {
		case happened := <-events.Out():
			switch e := happened.(type) {
			case event.EvtPeerIdentificationCompleted:
				if e.Peer == target && suits(e.Conn) {
					r.record(e)
					return e.Conn, nil
				}
			case event.EvtPeerIdentificationFailed:
				if e.Peer == target {
					return nil, fmt.Errorf("%w: %w", errUnidentified, e.Reason)
				}
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("nothing identified in time: %w", ctx.Err())
		}
	}
}

func (r *report) record(e event.EvtPeerIdentificationCompleted) {
	r.Agent = e.AgentVersion
	r.Protocols = protocol.ConvertToStrings(e.Protocols)
	r.ListenAddrs = texts(e.ListenAddrs)
	r.Observed = ""
	if e.ObservedAddr != nil {
		r.Observed = e.ObservedAddr.String()
	}
	relayed := isCircuit(e.Conn.RemoteMultiaddr())
	r.Relayed = &relayed
}

func isDirect(conn network.Conn) bool {
	return !conn.Stat().Limited && !isCircuit(conn.RemoteMultiaddr())
}

// openStream opens a stream on this very connection; the host's NewStream
// would choose among several.
func openStream(ctx context.Context, conn network.Conn, id protocol.ID) (network.Stream, error) {
	stream, err := conn.NewStream(network.WithAllowLimitedConn(ctx, "interop"))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { stream.Reset() })
	defer stop()
	if err := multistream.SelectProtoOrFail(id, stream); err != nil {
		stream.Reset()
		return nil, err
	}
	return stream, stream.SetProtocol(id)
}

// bestPing returns the shortest of a few round trips on one ping stream.
func bestPing(ctx context.Context, conn network.Conn) (time.Duration, error) {
	stream, err := openStream(ctx, conn, ping.ID)
	if err != nil {
		return 0, fmt.Errorf("opening the ping stream: %w", err)
	}
	defer context.AfterFunc(ctx, func() { stream.Reset() })()
	best := time.Duration(0)
	for i := range pings {
		rtt, err := pingOnce(stream)
		if err != nil {
			stream.Reset()
			return 0, fmt.Errorf("ping %d: %w", i+1, err)
		}
		if i == 0 || rtt < best {
			best = rtt
		}
	}
	return best, stream.Close()
}

func pingOnce(stream io.ReadWriter) (time.Duration, error) {
	sent := make([]byte, ping.PingSize)
	rand.Read(sent) // never fails, see crypto/rand
	start := time.Now()
	if _, err := stream.Write(sent); err != nil {
		return 0, err
	}
	received := make([]byte, len(sent))
	if _, err := io.ReadFull(stream, received); err != nil {
		return 0, err
	}
	if !bytes.Equal(sent, received) {
		return 0, errors.New("other bytes came back")
	}
	return time.Since(start), nil
}

func milliseconds(d time.Duration) *float64 {
	value := float64(d.Microseconds()) / 1000
	return &value
}
