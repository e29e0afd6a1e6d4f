// An authorization server of panva/node-oidc-provider that rotates refresh tokens and
// forgives no second use. It prints its address and the refresh token of a login.
import Provider from "oidc-provider";

const lifetime = Number(process.argv[2]); // of access tokens, in seconds
const provider = new Provider("http://127.0.0.1", {
  clients: [{
    client_id: "app",
    client_secret: "secret",
    grant_types: ["authorization_code", "refresh_token"],
    redirect_uris: ["https://app.example/callback"],
  }],
  ttl: { AccessToken: lifetime, RefreshToken: 3600, Grant: 3600, IdToken: 3600, Session: 3600, Interaction: 60 },
  rotateRefreshToken: true,
  features: { devInteractions: { enabled: false }, revocation: { enabled: true } },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
});

const server = provider.listen(0, "127.0.0.1", async () => {
  const client = await provider.Client.find("app");
  const scope = "openid offline_access";
  const grant = new provider.Grant({ accountId: "ann", clientId: "app" });
  grant.addOIDCScope(scope);
  const grantId = await grant.save();
  const token = new provider.RefreshToken({
    client, accountId: "ann", grantId, scope, gty: "authorization_code", authTime: Math.floor(Date.now() / 1000),
  });
  const refreshToken = await token.save();
  console.log(JSON.stringify({ address: `http://127.0.0.1:${server.address().port}`, refreshToken }));
});
