// The AWS SDK for Go v2 as one of the SDK programs: its default credential chain and nothing else. Lines on stdin, one JSON line each on stdout.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	smithyhttp "github.com/aws/smithy-go/transport/http"
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

// witness is the SDK's own cache; it only notes what the cache last gave out. Asking the cache once more after the call instead would be a
// second request to the endpoint whenever the session has less than the cache's window (5 min) left, and may name other keys than signed.
type witness struct {
	*aws.CredentialsCache
	last aws.Credentials
}

func (w *witness) Retrieve(ctx context.Context) (aws.Credentials, error) {
	credentials, err := w.CredentialsCache.Retrieve(ctx)
	if err == nil {
		w.last = credentials
	}
	return credentials, err
}

type program struct {
	client *sts.Client
	seen   *witness
}

func started(ctx context.Context) (*program, error) {
	settings, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, err
	}
	made := &program{}
	// The chain wraps what it finds in its cache, but for anonymous credentials.
	if cache, ok := settings.Credentials.(*aws.CredentialsCache); ok {
		made.seen = &witness{CredentialsCache: cache}
		settings.Credentials = made.seen
	}
	made.client = sts.NewFromConfig(settings)
	return made, nil
}

func (p *program) identity(ctx context.Context) (*success, error) {
	reply, err := p.client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return nil, err
	}
	told := &success{OK: true, ARN: reply.Arn, Key: signedWith(reply)}
	if p.seen != nil && p.seen.last.CanExpire {
		// As the SDK holds it: its cache takes the window of 5 min off what the container endpoint said.
		told.Expiration = aws.String(p.seen.last.Expires.UTC().Format("2006-01-02T15:04:05Z"))
	}
	return told, nil
}

// signedWith reads the key id out of the request that went out: what AWS saw, not what a cache says afterwards.
func signedWith(reply *sts.GetCallerIdentityOutput) *string {
	response, ok := awsmiddleware.GetRawResponse(reply.ResultMetadata).(*smithyhttp.Response)
	if !ok || response.Request == nil {
		return nil
	}
	_, scope, ok := strings.Cut(response.Request.Header.Get("Authorization"), "Credential=")
	if !ok {
		return nil
	}
	key, _, _ := strings.Cut(scope, "/")
	return &key
}

func main() {
	answers := json.NewEncoder(os.Stdout)
	os.Stdout = os.Stderr // whatever the SDK prints is not an answer
	_ = answers.Encode(hello{Client: "go-v2", Version: aws.SDKVersion})
	var kept *program
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

func timed(kept **program) any {
	began := time.Now()
	told, err := answered(context.Background(), kept)
	seconds := time.Since(began).Seconds()
	if err != nil {
		return failure{Text: err.Error(), Seconds: seconds}
	}
	told.Seconds = seconds
	return told
}

func answered(ctx context.Context, kept **program) (*success, error) {
	if *kept == nil {
		made, err := started(ctx)
		if err != nil {
			return nil, err
		}
		*kept = made
	}
	return (*kept).identity(ctx)
}
