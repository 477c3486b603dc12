// `node dev/issuer.ts [COMMAND]`: an issuer of access tokens, for developing and for tests. It signs whatever it is asked to.
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { exportJWK, generateKeyPair, type JWK, SignJWT } from 'jose'

const PORT = 4000
const LIFETIME_S = 3600

export const AUDIENCE = 'users-api'

type Claims = Record<string, unknown>

/** Answers a request in the issuer's place, as one that is broken or lies; false leaves it to the issuer. */
export type Fault = (request: IncomingMessage, response: ServerResponse) => boolean

export type Issuer = {
  url: string
  jwksUrl: string
  /** What makes the service take the issuer's tokens. */
  env: { AUTH_ISSUER: string; AUTH_AUDIENCE: string }
  /** The paths that were asked for, in their order. */
  asked: string[]
  /** The public keys. Tests may change them. */
  keys: JWK[]
  /** A token with these claims, and those that an access token needs. One that is undefined is left out. */
  sign(claims?: Claims, header?: Claims): Promise<string>
  /** Signs with a new key from now on. The old ones are no longer published, unless `keep` says so. */
  rotate(options?: { algorithm?: string; keep?: boolean }): Promise<void>
  fail(fault: Fault | undefined): void
  close(): Promise<void>
}

async function newKey(algorithm: string) {
  const { privateKey, publicKey } = await generateKeyPair(algorithm, { extractable: true })
  const names = { kid: randomUUID(), alg: algorithm }
  return { privateKey, names, published: { ...(await exportJWK(publicKey)), ...names, use: 'sig' } }
}

/** Starts an issuer on this machine; port 0 is a free one. */
export async function startIssuer({ port = 0, algorithm = 'ES256' } = {}): Promise<Issuer> {
  let current = await newKey(algorithm)
  let fault: Fault | undefined
  const keys: JWK[] = [current.published]
  const asked: string[] = []

  async function sign(claims: Claims = {}, header: Claims = {}) {
    const now = Math.floor(Date.now() / 1000)
    const own = {
      iss: url,
      aud: AUDIENCE,
      sub: 'dev',
      client_id: 'dev',
      iat: now,
      exp: now + LIFETIME_S,
      jti: randomUUID(),
    }
    return new SignJWT({ ...own, ...claims })
      .setProtectedHeader({ ...current.names, typ: 'at+jwt', ...header })
      .sign(current.privateKey)
  }

  async function answer(request: IncomingMessage): Promise<string | undefined> {
    const description = { issuer: url, jwks_uri: jwksUrl, token_endpoint: `${url}/token` }
    switch (request.url) {
      case '/.well-known/openid-configuration':
      case '/.well-known/oauth-authorization-server':
        return JSON.stringify(description)
      case '/jwks':
        return JSON.stringify({ keys })
      case '/token':
        return sign(JSON.parse((await text(request)) || '{}'))
    }
  }

  const server = createServer(async (request, response) => {
    asked.push(request.url ?? '')
    if (fault?.(request, response)) return
    const found = await answer(request).catch(() => undefined)
    response.writeHead(found === undefined ? 404 : 200).end(found)
  })
  await once(server.listen(port, '127.0.0.1'), 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const jwksUrl = `${url}/jwks`

  return {
    url,
    jwksUrl,
    env: { AUTH_ISSUER: url, AUTH_AUDIENCE: AUDIENCE },
    asked,
    keys,
    sign,
    async rotate({ algorithm: next = algorithm, keep = false } = {}) {
      current = await newKey(next)
      if (!keep) keys.length = 0
      keys.push(current.published)
    },
    fail(next) {
      fault = next
    },
    async close() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

const usage = ({ url, env }: Issuer) => `
  Issuer      ${url}
  Settings    ${Object.entries(env)
    .map((setting) => setting.join('='))
    .join(' ')}

  A token:    curl -d '{"sub": "alice", "scope": "users:read users:write"}' ${url}/token
  Use it:     curl -H "Authorization: Bearer $(curl -s -d '{"scope": "users:read"}' ${url}/token)" http://localhost:3000/users

  \`npx node dev/issuer.ts npm run dev\` starts the service with it. Ctrl-C stops both.
`

if (import.meta.main) {
  const issuer = await startIssuer({ port: PORT })
  process.stdout.write(usage(issuer))
  const [command, ...args] = process.argv.slice(2)
  if (command) {
    // It gets the terminal's signals as well, and ends by itself.
    process.on('SIGINT', () => {})
    const env = { ...process.env, ...issuer.env }
    const child = spawn(command, args, { stdio: 'inherit', env, shell: process.platform === 'win32' })
    process.on('SIGTERM', () => child.kill())
    const [code] = await once(child, 'exit')
    process.exit(code ?? 1)
  }
}
