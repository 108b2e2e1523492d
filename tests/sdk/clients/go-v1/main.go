// The AWS SDK for Go v1 as one of the SDK programs: its default credential chain and nothing else. Lines on stdin, one JSON line each on stdout.
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go/aws"
	"github.com/aws/aws-sdk-go/aws/request"
	"github.com/aws/aws-sdk-go/aws/session"
	"github.com/aws/aws-sdk-go/service/sts"
)

type hello struct {
	Client  string `json:"client"`
	Version string `json:"version"`
}

type success struct {
	OK         bool    `json:"ok"`
	ARN        *string `json:"arn"`
	Key        *string `json:"key"`
	Expiration *string `json:"expiration"`
	Seconds    float64 `json:"seconds"`
}

type failure struct {
	OK      bool    `json:"ok"`
	Text    string  `json:"text"`
	Seconds float64 `json:"seconds"`
}

func started() (*sts.STS, error) {
	settings, err := session.NewSession()
	if err != nil {
		return nil, err
	}
	endpoint := aws.NewConfig()
	if url := os.Getenv("SDK_STS_URL"); url != "" { // v1 knows no AWS_ENDPOINT_URL
		endpoint = endpoint.WithEndpoint(url)
	}
	return sts.New(settings, endpoint), nil
}

func identity(client *sts.STS) (*success, error) {
	sent, reply := client.GetCallerIdentityRequest(&sts.GetCallerIdentityInput{})
	if err := sent.Send(); err != nil {
		return nil, err
	}
	// No expiration: v1's chain does not tell it (ChainProvider has no ExpiresAt).
	return &success{OK: true, ARN: reply.Arn, Key: signedWith(sent)}, nil
}

// signedWith reads the key id out of the request that went out: what AWS saw, not what a cache says afterwards.
func signedWith(sent *request.Request) *string {
	_, scope, ok := strings.Cut(sent.HTTPRequest.Header.Get("Authorization"), "Credential=")
	if !ok {
		return nil
	}
	key, _, _ := strings.Cut(scope, "/")
	return &key
}

func main() {
	answers := json.NewEncoder(os.Stdout)
	os.Stdout = os.Stderr // v1's logger writes to stdout, where only answers belong
	_ = answers.Encode(hello{Client: "go-v1", Version: aws.SDKVersion})
	var kept *sts.STS
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		switch strings.TrimSpace(lines.Text()) {
		case "quit":
			return
		case "call":
			_ = answers.Encode(timed(&kept))
		case "fresh":
			kept = nil
			_ = answers.Encode(timed(&kept))
		default:
			_ = answers.Encode(failure{Text: "unknown command: say call, fresh or quit"})
		}
	}
}

func timed(kept **sts.STS) any {
	began := time.Now()
	told, err := answered(kept)
	seconds := time.Since(began).Seconds()
	if err != nil {
		return failure{Text: err.Error(), Seconds: seconds}
	}
	told.Seconds = seconds
	return told
}

func answered(kept **sts.STS) (*success, error) {
	if *kept == nil {
		made, err := started()
		if err != nil {
			return nil, err
		}
		*kept = made
	}
	return identity(*kept)
}
