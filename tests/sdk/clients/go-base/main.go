// What Terraform's AWS provider and its S3 backend get their credentials with, HashiCorp's aws-sdk-go-base, as one of the SDK programs: no key,
// profile or provider is chosen here. Lines on stdin, one JSON line each on stdout.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"runtime/debug"
	"strings"
	"time"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	awsbase "github.com/hashicorp/aws-sdk-go-base/v2"
	"github.com/hashicorp/aws-sdk-go-base/v2/diag"
)

const library = "github.com/hashicorp/aws-sdk-go-base/v2"

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

func version() string {
	built, _ := debug.ReadBuildInfo()
	for _, module := range built.Deps {
		if module.Path == library {
			return strings.TrimPrefix(module.Version, "v")
		}
	}
	return "unknown"
}

// told is a failure as Terraform prints it: each error's summary, then its detail.
func told(found diag.Diagnostics) error {
	var lines []string
	for _, one := range found {
		if one.Severity() == diag.SeverityError {
			lines = append(lines, one.Summary(), one.Detail())
		}
	}
	return errors.New(strings.Join(lines, "\n"))
}

// started is what Terraform does first: the credentials are asked for here, before any call.
func started(ctx context.Context) (*sts.Client, error) {
	wanted := awsbase.Config{
		CallerName:             "sdk program",
		CallerDocumentationURL: "https://example.com",
		MaxRetries:             2,
		Region:                 os.Getenv("AWS_REGION"),
	}
	_, settings, found := awsbase.GetAwsConfig(ctx, &wanted)
	if found.HasError() {
		return nil, told(found)
	}
	return sts.NewFromConfig(settings), nil
}

func identity(ctx context.Context, client *sts.Client) (*success, error) {
	reply, err := client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return nil, err
	}
	return &success{OK: true, ARN: reply.Arn, Key: signedWith(reply)}, nil
}

// signedWith reads the key id out of the request that went out: what AWS saw.
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
	os.Stdout = os.Stderr // whatever the library prints is not an answer
	_ = answers.Encode(hello{Client: "go-base", Version: version()})
	var kept *sts.Client
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

func timed(kept **sts.Client) any {
	began := time.Now()
	said, err := answered(context.Background(), kept)
	seconds := time.Since(began).Seconds()
	if err != nil {
		return failure{Text: err.Error(), Seconds: seconds}
	}
	said.Seconds = seconds
	return said
}

func answered(ctx context.Context, kept **sts.Client) (*success, error) {
	if *kept == nil {
		made, err := started(ctx)
		if err != nil {
			return nil, err
		}
		*kept = made
	}
	return identity(ctx, *kept)
}
