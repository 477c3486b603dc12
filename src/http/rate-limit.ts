import { hash, randomBytes } from 'node:crypto'
import { BlockList, isIP } from 'node:net'
import { createMiddleware } from 'hono/factory'
import { events } from '../events.ts'
import type { Env } from './env.ts'
import { Problem } from './problem.ts'

/** Of 8 bytes each. */
const SLOTS = 2 ** 20
/** So many addresses of `X-Forwarded-For` are looked at, from its right: a list may be long, and costs time. */
const MAX_HOPS = 32
const DETAIL = 'This client has used up its quota of requests.'
const PROBLEM_TYPES = 'https://iana.org/assignments/http-problem-types'
/** What the draft wants in the body of a 429. */
const MEMBERS = { type: `${PROBLEM_TYPES}#quota-exceeded`, 'violated-policies': ['default'] }

const familyOf = (address: string) => (isIP(address) === 6 ? 'ipv6' : 'ipv4')

/**
 * Whom a request comes from: the peer or, if that is a trusted proxy, the last address of `X-Forwarded-For` that is none:
 * what stands before it, anybody may have written. If an entry is no address, the proxy that wrote it counts. Of an IPv6
 * address only the network counts, its first half: the other half is for the client to choose.
 */
export function clientOf(peer: string, forwardedFor: string, trusted: BlockList): string {
  // Sockets that take both show IPv4 as a part of IPv6.
  const entries = forwardedFor.split(',').slice(-MAX_HOPS)
  const hops = [...entries, peer].map((hop) => hop.trim().replace(/^::ffff:(?=\d+\.)/i, '')).reverse()
  const client = hops.find((hop, i) => !trusted.check(hop, familyOf(hop)) || !isIP(hops[i + 1] ?? '')) ?? ''
  const groups = client.replace('::', `:${'0:'.repeat(9 - client.split(':').length)}`).split(':')
  return groups.slice(0, 4).join(':')
}

/**
 * Counts requests by key, with the generic cell rate algorithm: a key may use all of its quota at once, and gets back one
 * request each `windowS / quota`. The table never grows: a slot holds the time at which all of a quota will be back.
 *
 * A key has two slots, by a hash that nobody outside can foretell, and the better one counts. Others may share a slot, so
 * at worst a key has less than its quota. Nothing is evicted, so no flood of keys gives a client its quota back; and it
 * takes half a million times a quota, within a window, to use up that of a key whose slots are unknown.
 */
export function createCounter(quota: number, windowS: number, clock = () => performance.now(), slots = SLOTS) {
  const secret = randomBytes(16).toString('hex')
  const table = new Float64Array(slots)
  // Times are in ms / quota: all are whole numbers, and no rounding costs a client its last request.
  const interval = windowS * 1000
  /** Counts a request, if any is left. In `seconds` as many as are `left` come back, or if none is, the next one. */
  return function take(key: string) {
    const now = Math.floor(clock()) * quota
    const digest = hash('sha256', secret + key, 'buffer')
    const own = [digest.readUInt32LE(0) % slots, digest.readUInt32LE(4) % slots]
    const spent = Math.min(...own.map((slot) => Math.max(0, (table[slot] ?? 0) - now)))
    const isAllowed = spent + interval <= quota * interval
    const used = isAllowed ? spent + interval : spent
    for (const slot of own) table[slot] = Math.max(table[slot] ?? 0, now + used)
    const left = Math.floor(quota - used / interval)
    const wait = left > 0 ? left * interval : used + interval - quota * interval
    return { isAllowed, left, seconds: Math.ceil(wait / quota / 1000) }
  }
}

export const quotaExceeded = (seconds: number) =>
  new Problem(429, DETAIL, { headers: { 'Retry-After': `${seconds}` }, members: MEMBERS })

/**
 * 429 for a client that has used up its quota, and what is left of it in every answer, as
 * draft-ietf-httpapi-ratelimit-headers-11 has it. A client is whom its token names, or else where it comes from.
 * @param rate requests and seconds, as in `100/60`
 * @param proxies networks whose `X-Forwarded-For` is believed, as in `10.0.0.0/8`
 */
export function limitRate({ rate, proxies = [] }: { rate: string; proxies: readonly string[] | undefined }) {
  const [quota = 0, windowS = 0] = rate.split('/').map(Number)
  const trusted = new BlockList()
  for (const [address = '', bits] of proxies.map((network) => network.split('/'))) {
    trusted.addSubnet(address, Number(bits), familyOf(address))
  }
  const take = createCounter(quota, windowS)
  const policy = `"default";q=${quota};w=${windowS}`
  return createMiddleware<Env>(async function limitRate(c, next) {
    const { incoming, outgoing } = c.env
    const identity = c.get('identity')
    const address = () => clientOf(incoming.socket.remoteAddress ?? '', c.req.header('x-forwarded-for') ?? '', trusted)
    const key = identity ? `subject ${identity.subject} of ${identity.issuer}` : address()
    const { isAllowed, left, seconds } = take(key)
    // On Node's response, which every answer passes: pages, streams, files and errors.
    outgoing.setHeader('RateLimit-Policy', policy).setHeader('RateLimit', `"default";r=${left};t=${seconds}`)
    if (isAllowed) return next()
    events.emit('refused', 'quota')
    throw quotaExceeded(seconds)
  })
}
