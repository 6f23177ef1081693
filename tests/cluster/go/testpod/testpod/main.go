// Command testpod is what the tests of the cluster run in pods: it serves, asks, eats memory, waits.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

const usage = `usage: testpod sleep | serve ADDRESS | get URL | resolve NAME | eat MEBIBYTES | exit STATUS`

func main() {
	if len(os.Args) < 2 {
		fail(usage)
	}
	switch os.Args[1] {
	case "sleep":
		wait()
	case "serve":
		go serve(argument())
		wait()
	case "get":
		get(argument())
	case "resolve":
		resolve(argument())
	case "eat":
		eat(number())
		wait()
	case "exit":
		os.Exit(number())
	default:
		fail(usage)
	}
}

func argument() string {
	if len(os.Args) < 3 {
		fail(usage)
	}
	return os.Args[2]
}

func number() int {
	value, err := strconv.Atoi(argument())
	if err != nil {
		fail(err)
	}
	return value
}

func fail(why any) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(2)
}

func wait() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	<-signals
}

// serve answers every path with the pod's name, and /metrics with one gauge.
func serve(address string) {
	name, _ := os.Hostname()
	http.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "# TYPE testpod_up gauge\ntestpod_up 1")
	})
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, name)
	})
	fail(http.ListenAndServe(address, nil))
}

func get(url string) {
	client := http.Client{Timeout: 5 * time.Second}
	answer, err := client.Get(url)
	if err != nil {
		fail(err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(os.Stdout, answer.Body); err != nil {
		fail(err)
	}
	if answer.StatusCode >= 400 {
		fail(answer.Status)
	}
}

func resolve(name string) {
	addresses, err := net.LookupHost(name)
	if err != nil {
		fail(err)
	}
	for _, address := range addresses {
		fmt.Println(address)
	}
}

// eat takes and touches memory, a mebibyte at a time, and keeps it.
func eat(mebibytes int) {
	var eaten [][]byte
	for range mebibytes {
		bite := make([]byte, 1<<20)
		for i := 0; i < len(bite); i += 4096 {
			bite[i] = 1
		}
		eaten = append(eaten, bite)
	}
	fmt.Println(len(eaten), "MiB eaten")
}
