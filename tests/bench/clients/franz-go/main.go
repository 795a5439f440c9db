// franz-go in the benchmark: Produce with a promise, at most `window` records buffered.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const warmUp = 1000

type tally struct {
	mu        sync.Mutex
	failed    int
	failure   *string
	latencies []time.Duration
}

func (t *tally) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed++
	if t.failure == nil {
		text := err.Error()
		t.failure = &text
	}
}

func (t *tally) quantile(q float64) *float64 {
	if len(t.latencies) == 0 {
		return nil
	}
	us := float64(t.latencies[int(float64(len(t.latencies)-1)*q+0.5)].Nanoseconds()) / 1e3
	return &us
}

func main() {
	job := map[string]string{}
	for _, argument := range os.Args[1:] {
		key, value, _ := strings.Cut(argument, "=")
		job[key] = value
	}
	number := func(key string) int {
		n, err := strconv.Atoi(job[key])
		check(err)
		return n
	}
	if job["mode"] == "consume" {
		read(job, number)
		return
	}
	records, window := number("records"), number("window")
	values := readValues(job["values"], number("size"))

	codec := kgo.NoCompression()
	if job["compression"] == "lz4" {
		codec = kgo.Lz4Compression()
	}
	// Idempotence is its default, and five in flight with it. MaxBufferedRecords is the window: Produce waits when it is full.
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(job["bootstrap"], ",")...),
		kgo.DefaultProduceTopic(job["topic"]),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(time.Duration(number("linger"))*time.Millisecond),
		kgo.ProducerBatchMaxBytes(int32(number("batch"))),
		kgo.ProducerBatchCompression(codec),
		kgo.MaxBufferedRecords(window),
	)
	check(err)
	defer client.Close()
	ctx := context.Background()

	var warm tally
	flood(ctx, client, values, warmUp, &warm)
	if warm.failure != nil {
		fmt.Fprintln(os.Stderr, *warm.failure)
		os.Exit(1)
	}

	fmt.Println("ready")
	_, err = bufio.NewReader(os.Stdin).ReadString('\n')
	check(err)
	var result tally
	before, began := usage(), time.Now()
	if rate := number("rate"); rate > 0 {
		pace(ctx, client, values, records, rate, &result)
	} else {
		flood(ctx, client, values, records, &result)
	}
	seconds, after := time.Since(began).Seconds(), usage()

	sort.Slice(result.latencies, func(i, j int) bool { return result.latencies[i] < result.latencies[j] })
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"version":        version(),
		"records":        records,
		"failed":         result.failed,
		"failure":        result.failure,
		"seconds":        seconds,
		"cpu_user_s":     cpu(after.Utime) - cpu(before.Utime),
		"cpu_sys_s":      cpu(after.Stime) - cpu(before.Stime),
		"rss_peak_bytes": peakMemory(),
		"p50_us":         result.quantile(0.5),
		"p99_us":         result.quantile(0.99),
		"p999_us":        result.quantile(0.999),
	}))
}

// Reads by group subscribe; the clock runs from the first poll, which joins the group.
func read(job map[string]string, number func(string) int) {
	records, size, stamped := number("records"), number("size"), number("rate") > 0
	var result tally
	fmt.Println("ready")
	stdin := bufio.NewReader(os.Stdin)
	_, err := stdin.ReadString('\n')
	check(err)
	before, began := usage(), time.Now()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(job["bootstrap"], ",")...),
		kgo.ConsumerGroup(job["group"]),
		kgo.ConsumeTopics(job["topic"]),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	check(err)
	var first time.Duration
	seen, sum := 0, 0
	for seen < records {
		fetches := client.PollFetches(context.Background())
		fetches.EachError(func(_ string, _ int32, err error) { result.fail(err) })
		fetches.EachRecord(func(record *kgo.Record) {
			if seen == 0 {
				first = time.Since(began)
			}
			seen++
			sum += int(record.Value[0]) + int(record.Value[len(record.Value)-1])
			if len(record.Value) != size {
				result.fail(fmt.Errorf("a value of %d bytes", len(record.Value)))
			}
			if stamped {
				sent := int64(binary.BigEndian.Uint64(record.Value))
				result.latencies = append(result.latencies, time.Duration(time.Now().UnixNano()-sent))
			}
		})
	}
	seconds, after := time.Since(began).Seconds(), usage()
	sort.Slice(result.latencies, func(i, j int) bool { return result.latencies[i] < result.latencies[j] })
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"version":        version(),
		"records":        seen,
		"failed":         result.failed,
		"failure":        result.failure,
		"seconds":        seconds,
		"first_s":        first.Seconds(),
		"cpu_user_s":     cpu(after.Utime) - cpu(before.Utime),
		"cpu_sys_s":      cpu(after.Stime) - cpu(before.Stime),
		"rss_peak_bytes": peakMemory(),
		"p50_us":         result.quantile(0.5),
		"p99_us":         result.quantile(0.99),
		"p999_us":        result.quantile(0.999),
		"sum":            sum,
	}))
	// The connections are looked at before they are closed.
	_, _ = stdin.ReadString('\n')
	client.Close()
}

func flood(ctx context.Context, client *kgo.Client, values [][]byte, records int, result *tally) {
	var done atomic.Int64
	finished := make(chan struct{})
	promise := func(_ *kgo.Record, err error) {
		if err != nil {
			result.fail(err)
		}
		if done.Add(1) == int64(records) {
			close(finished)
		}
	}
	for i := 0; i < records; i++ {
		client.Produce(ctx, &kgo.Record{Value: values[i%len(values)]}, promise)
	}
	<-finished
}

func pace(ctx context.Context, client *kgo.Client, values [][]byte, records, rate int, result *tally) {
	var group sync.WaitGroup
	interval, next := time.Second/time.Duration(rate), time.Now()
	for i := 0; i < records; i++ {
		next = next.Add(interval)
		time.Sleep(time.Until(next))
		group.Add(1)
		sent := time.Now()
		client.Produce(ctx, &kgo.Record{Value: values[i%len(values)]}, func(_ *kgo.Record, err error) {
			result.mu.Lock()
			result.latencies = append(result.latencies, time.Since(sent))
			result.mu.Unlock()
			if err != nil {
				result.fail(err)
			}
			group.Done()
		})
	}
	group.Wait()
}

func readValues(file string, size int) (values [][]byte) {
	all, err := os.ReadFile(file)
	check(err)
	for ; len(all) >= size; all = all[size:] {
		values = append(values, all[:size:size])
	}
	return values
}

func usage() (usage syscall.Rusage) {
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return usage
}

func cpu(time syscall.Timeval) float64 { return float64(time.Sec) + float64(time.Usec)/1e6 }

// Not Maxrss: on Linux that is never below what the process that started this one held.
func peakMemory() (bytes int64) {
	status, err := os.ReadFile("/proc/self/status")
	check(err)
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	_, err = fmt.Sscan(rest, &bytes)
	check(err)
	return bytes * 1024
}

func version() string {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == "github.com/twmb/franz-go" {
			return strings.TrimPrefix(module.Version, "v")
		}
	}
	return "unknown"
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
