// Writes the stores of tests/store/aws_vault/fixtures with aws-vault's own packages: its keyring, and the types that
// put a key, a session and an Identity Center token into it.
//
//	generator file DIRECTORY PASSPHRASE
//	generator secret-service            (in a session whose Secret Service has the collection "awsvault" unlocked)
//
// Every key in here is made up.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/99designs/aws-vault/v7/vault"
	"github.com/99designs/keyring"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssooidc"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
)

// The names are those that a file name or a D-Bus path cannot hold as they are.
var keys = []struct{ name, id, secret, token string }{
	{"identity", "AKIAIMPORTED00000001", "canary/import+1aaaaaaaaaaaaaaaaaaaaaaaaa", ""},
	{"team/prod", "AKIAIMPORTED00000002", "canary/import+2bbbbbbbbbbbbbbbbbbbbbbbbb", ""},
	{"50% off", "AKIAIMPORTED00000003", "canary/import+3ccccccccccccccccccccccccc", ""},
	{"bücher", "AKIAIMPORTED00000004", "canary/import+4ddddddddddddddddddddddddd", ""},
	{"../../escape", "AKIAIMPORTED00000005", "canary/import+5eeeeeeeeeeeeeeeeeeeeeeeee", ""},
	{"temporary", "ASIAIMPORTED00000006", "canary/import+6fffffffffffffffffffffffff", "canary-session-token"},
}

func main() {
	// as aws-vault's cli package has them
	config := keyring.Config{
		ServiceName:             "aws-vault",
		LibSecretCollectionName: "awsvault",
		AllowedBackends:         []keyring.BackendType{keyring.BackendType(os.Args[1])},
	}
	if os.Args[1] == "file" {
		config.FileDir = os.Args[2]
		config.FilePasswordFunc = keyring.FixedStringPrompt(os.Args[3])
	}
	ring, err := keyring.Open(config)
	check(err)
	long := vault.CredentialKeyring{Keyring: ring}
	for _, key := range keys {
		check(long.Set(key.name, aws.Credentials{
			AccessKeyID: key.id, SecretAccessKey: key.secret, SessionToken: key.token,
		}))
	}
	end := time.Date(2099, 11, 22, 20, 0, 0, 0, time.UTC)
	sessions := vault.SessionKeyring{Keyring: ring}
	check(sessions.Set(vault.SessionMetadata{
		Type: "sts.GetSessionToken", ProfileName: "identity", MfaSerial: "arn:aws:iam::123456789012:mfa/franklin",
	}, &types.Credentials{
		AccessKeyId: aws.String("ASIAIMPORTED00000007"), SecretAccessKey: aws.String("canary-session-secret"),
		SessionToken: aws.String("canary-session-token"), Expiration: &end,
	}))
	tokens := vault.OIDCTokenKeyring{Keyring: ring}
	check(tokens.Set("https://example.awsapps.com/start", &ssooidc.CreateTokenOutput{
		AccessToken: aws.String("canary-oidc-token"), ExpiresIn: 3600,
	}))
	for _, key := range keys { // read back by the writer itself
		found, err := long.Get(key.name)
		check(err)
		if found.AccessKeyID != key.id || found.SecretAccessKey != key.secret {
			check(fmt.Errorf("%s reads back as %s", key.name, found.AccessKeyID))
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "generator:", err)
		os.Exit(1)
	}
}
