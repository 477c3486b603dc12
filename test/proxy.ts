import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { Transform } from 'node:stream'

/** A network between the service and PostgreSQL that can fail. */
export type FaultyNetwork = {
  port: number
  /** The messages that were sent to PostgreSQL since the last call, by their type (PostgreSQL, section 54.7). */
  sent(): string
  /** Silent: nothing arrives any more, on old and new connections, and nothing is refused. */
  silence(on: boolean): void
  /** Open connections fall silent for good, and new ones are as ever: what stood in between has forgotten them. */
  forget(): void
  /** Slow: what PostgreSQL sends arrives so much later, on old and new connections. */
  delay(ms: number): void
  /** Ends every connection, with a reset. */
  cut(): void
  close(): void
}

/** Leads to PostgreSQL on port `target`, from `port` or any free one. Connections to one of several go to each in turn. */
export async function startProxy(target: number | number[], port = 0): Promise<FaultyNetwork> {
  const targets = [target].flat()
  let count = 0
  const pairs = new Set<[client: Socket, upstream: Socket, late: Transform]>()
  let silent = false
  let delayMs = 0
  let log = ''

  /** Notes the types of the messages in what the service sends; a message may come in parts. */
  function createNote() {
    let rest: Buffer = Buffer.alloc(0)
    let started = false
    return (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk])
      for (;;) {
        const head = started ? 1 : 0
        if (rest.length < head + 4) return
        const end = head + rest.readUInt32BE(head)
        if (rest.length < end) return
        if (started) log += String.fromCharCode(rest[0] as number)
        started = true
        rest = rest.subarray(end)
      }
    }
  }

  function forget() {
    for (const [client, upstream, late] of pairs) {
      client.unpipe(upstream).pause()
      upstream.unpipe(late).pause()
    }
  }

  const server = createServer({ noDelay: true }, (client) => {
    const upstream = connect({ port: targets[count++ % targets.length] ?? 0, host: '127.0.0.1', noDelay: true })
    const late = new Transform({ transform: (chunk, _, done) => void setTimeout(done, delayMs, null, chunk) })
    const pair: [Socket, Socket, Transform] = [client, upstream, late]
    pairs.add(pair)
    const note = createNote()
    client.on('data', note)
    client.pipe(upstream).pipe(late).pipe(client)
    for (const socket of [client, upstream]) {
      socket.on('error', () => {})
      socket.on('close', () => {
        pairs.delete(pair)
        if (!silent) for (const other of pair) other.destroy()
      })
      if (silent) socket.pause()
    }
  }).listen(port, '127.0.0.1')
  await once(server, 'listening')

  return {
    port: (server.address() as AddressInfo).port,
    sent() {
      const all = log
      log = ''
      return all
    },
    silence(on) {
      silent = on
      if (on) return forget()
      // A connection that came meanwhile is piped already: twice would send each byte twice.
      for (const [client, upstream, late] of pairs) client.unpipe(upstream).pipe(upstream).unpipe(late).pipe(late)
    },
    forget,
    delay(ms) {
      delayMs = ms
    },
    cut() {
      for (const [client, upstream] of pairs) for (const socket of [client, upstream]) socket.resetAndDestroy()
    },
    close() {
      server.close()
      for (const pair of pairs) for (const socket of pair) socket.destroy()
    },
  }
}

/** A network in front of the server that a URL names, and the URL that goes through it. */
export async function startProxyTo(address: string) {
  const url = new URL(address)
  const network = await startProxy(Number(url.port))
  url.port = String(network.port)
  return { network, url: url.href }
}
