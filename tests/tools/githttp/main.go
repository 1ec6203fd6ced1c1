// Command githttp serves the bare Git repositories below one directory over smart
// HTTP, for fetch and for push, through `git http-backend`.
//
// It exists for tests: it listens on loopback only, prints its address as the one
// line on standard output, writes one line per request to standard error, and
// stops when standard input is closed, so that it never outlives its test. It is
// not a Git host: there is no TLS, no per-repository access and no rate limit.
package main

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// bodyMax bounds a request: CGI needs the length of a body before its first byte,
// so that a chunked one (a large push, and every request of some clients) has to
// be held in memory.
const bodyMax = 256 << 20

func main() {
	log.SetFlags(0)
	log.SetPrefix("githttp: ")
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	dir := flag.String("dir", "", "directory that holds the bare repositories")
	listen := flag.String("listen", "127.0.0.1:0", "loopback address to listen on")
	basic := flag.String("basic", "", "user:password to ask for (basic authentication)")
	bearer := flag.String("bearer", "", "token to ask for (Authorization: Bearer)")
	flag.Parse()

	if *dir == "" {
		return errors.New("-dir is required")
	}
	root, err := filepath.Abs(*dir)
	if err != nil {
		return err
	}
	git, err := exec.LookPath("git")
	if err != nil {
		return fmt.Errorf("git is needed on the PATH: %w", err)
	}
	listener, err := listenOnLoopback(*listen)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           &gate{basic: *basic, bearer: *bearer, next: &backend{git: git, root: root}},
		ReadHeaderTimeout: 10 * time.Second,
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Printf("http://%s\n", listener.Addr())
	return server.Serve(listener)
}

func listenOnLoopback(address string) (net.Listener, error) {
	resolved, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, err
	}
	if !resolved.IP.IsLoopback() {
		return nil, fmt.Errorf("%s is not a loopback address", address)
	}
	return net.ListenTCP("tcp", resolved)
}

// gate asks for credentials when any are configured; either kind opens it.
type gate struct {
	basic, bearer string
	next          http.Handler
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !g.opens(r) {
		log.Printf("401 %s %s", r.Method, r.URL.RequestURI())
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		http.Error(w, "credentials required", http.StatusUnauthorized)
		return
	}
	log.Printf("ok %s %s", r.Method, r.URL.RequestURI())
	g.next.ServeHTTP(w, r)
}

func (g *gate) opens(r *http.Request) bool {
	if g.basic == "" && g.bearer == "" {
		return true
	}
	if g.basic != "" {
		user, password, ok := r.BasicAuth()
		if ok && same(user+":"+password, g.basic) {
			return true
		}
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return g.bearer != "" && ok && same(token, g.bearer)
}

func same(given, wanted string) bool {
	return subtle.ConstantTimeCompare([]byte(given), []byte(wanted)) == 1
}

// backend runs `git http-backend` for each request.
type backend struct {
	git, root string
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyMax))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	r.TransferEncoding = nil

	handler := &cgi.Handler{
		Path: b.git,
		Args: []string{"http-backend"},
		Dir:  b.root,
		Env: []string{
			"GIT_PROJECT_ROOT=" + b.root,
			"GIT_HTTP_EXPORT_ALL=1",
			"GIT_PROTOCOL=" + r.Header.Get("Git-Protocol"),
			"GIT_CONFIG_NOSYSTEM=1",
			"GIT_CONFIG_GLOBAL=" + os.DevNull,
			"GIT_CONFIG_COUNT=1",
			"GIT_CONFIG_KEY_0=http.receivepack",
			"GIT_CONFIG_VALUE_0=true",
		},
		Stderr: os.Stderr,
	}
	handler.ServeHTTP(w, r)
}
