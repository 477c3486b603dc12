import { type Context, Hono } from 'hono'
import { preferred } from '../http/accept.ts'
import { answer, json } from '../http/answer.ts'
import { entityTag, ifMatch, ifNoneMatch } from '../http/conditional.ts'
import type { Env } from '../http/env.ts'
import { NDJSON_MEDIA_TYPE, ndjson } from '../http/ndjson.ts'
import { Problem, ProblemType, unavailableProblem } from '../http/problem.ts'
import { valid, validJson } from '../http/validate.ts'
import { LIMIT_DEFAULT, ListQuery, NewUser, PATCH_MEDIA_TYPES, UserId, UserPatch } from './schemas.ts'
import type { StoredUser } from './statements.ts'
import type { Conflict, UserStore, Versions } from './store.ts'

/** A user's answer may be kept, but asked for again each time: another request may have changed it. */
const CACHE = { 'Cache-Control': 'private, no-cache' }
const tagged = ({ version }: StoredUser) => ({ ...CACHE, ETag: entityTag(version) })

const missing = () => new Problem(404, 'There is no user with this id.')
const stale = () => new Problem(412, 'The user is not, or no longer, at the version that the request asks for.')

function assertOneOf(versions: Versions, { version }: StoredUser) {
  if (versions && !versions.includes(version)) throw stale()
}

function taken({ fields }: Conflict): Problem {
  const errors = fields.map((field) => ({ pointer: `/${field}`, detail: 'is taken by another user' }))
  const detail = `Another user has this ${fields.join(' and this ')}.`
  return new Problem(409, detail, { type: ProblemType.conflict, errors })
}

/** The answer to a change that was made, or the problem that says why it was not. */
function changed<R extends { outcome: string }>(result: R | Conflict | { outcome: 'missing' | 'stale' }) {
  if (result.outcome === 'missing') throw missing()
  if (result.outcome === 'stale') throw stale()
  if (result.outcome === 'conflict') throw taken(result as Conflict)
  return result as Exclude<R, { outcome: 'missing' | 'stale' | 'conflict' }>
}

/** Printable ASCII, as the field's draft (draft-ietf-httpapi-idempotency-key-header) allows at most. */
const IDEMPOTENCY_KEY = /^[\x21-\x7e]{1,255}$/

function idempotencyKey(value: string | undefined): string | undefined {
  if (value === undefined || IDEMPOTENCY_KEY.test(value)) return value
  throw new Problem(400, 'Idempotency-Key must be 1 to 255 printable ASCII characters without spaces.')
}

/** Whether the request asks for ndjson; most do not so much as name it. */
const wantsStream = (c: Context) =>
  /ndjson/i.test(c.req.header('accept') ?? '') &&
  preferred(c, ['application/json', NDJSON_MEDIA_TYPE]) === NDJSON_MEDIA_TYPE

/** The routes under `/users`; at most `maxStreams` streams run at a time, for each has a connection of its own. */
export function userRoutes(store: UserStore, { maxStreams }: { maxStreams: number }) {
  let streams = 0

  async function* counted(lines: AsyncGenerator<string, void, void>) {
    streams++
    try {
      yield* lines
    } finally {
      streams--
    }
  }

  async function existing(id: number | null): Promise<StoredUser> {
    const found = id === null ? undefined : await store.get(id)
    if (!found) throw missing()
    return found
  }

  /**
   * The versions that a change may start from (RFC 9110, section 13.2.2). If-None-Match, rare on a change, is held
   * against the present version, and the change then bound to that.
   */
  async function conditions(c: Context<Env>, id: number | null): Promise<Versions> {
    const versions = ifMatch(c.req.header('if-match'))
    const noneOf = c.req.header('if-none-match')
    if (noneOf === undefined) return versions
    const excludes = (version: number) => ifNoneMatch(noneOf, version)
    excludes(0)
    const found = await existing(id)
    assertOneOf(versions, found)
    if (excludes(found.version)) throw stale()
    return [found.version]
  }

  function stream(c: Context<Env>, after: number): Response | Promise<Response> {
    const { cursor: _, ...others } = c.req.query()
    const [unfit] = Object.keys(others)
    if (unfit) throw new Problem(400, `${unfit} does not go with ${NDJSON_MEDIA_TYPE}: that has every user.`)
    if (streams >= maxStreams) throw unavailableProblem('Too many streams are under way.')
    const headers = { 'Cache-Control': 'private, no-store', Vary: 'Accept' }
    if (c.req.method === 'HEAD') return answer(c, null, 200, { ...headers, 'Content-Type': NDJSON_MEDIA_TYPE })
    return ndjson(c, counted(store.lines(after)), headers)
  }

  return new Hono<Env>()
    .get('/', valid('query', ListQuery), async (c) => {
      const { limit = LIMIT_DEFAULT, cursor: after = 0, username, email } = c.req.valid('query')
      if (wantsStream(c)) return stream(c, after) as never
      const page = await store.list({ limit, after, username, email })
      const headers: Record<string, string> = { ...CACHE, Vary: 'Accept' }
      if (page.next !== null) {
        const query = new URLSearchParams({ ...c.req.query(), cursor: page.next })
        headers.Link = `<${c.req.path}?${query}>; rel="next"`
      }
      return json(c, page, 200, headers)
    })

    .post('/', validJson(NewUser), async (c) => {
      const key = idempotencyKey(c.req.header('idempotency-key'))
      const result = await store.create(c.req.valid('json'), key)
      if (result.outcome === 'conflict') throw taken(result)
      if (result.outcome === 'key-reused') {
        const detail = 'This Idempotency-Key has created a user from another body.'
        throw new Problem(422, detail, { type: ProblemType.idempotencyKeyReused })
      }
      return json(c, result.user, 201, { ...tagged(result), Location: `/users/${result.user.id}` })
    })

    .get('/:id', valid('param', UserId), async (c) => {
      const { id } = c.req.valid('param')
      const found = await existing(id)
      assertOneOf(ifMatch(c.req.header('if-match')), found)
      if (ifNoneMatch(c.req.header('if-none-match'), found.version)) {
        return answer(c, null, 304, tagged(found)) as never
      }
      return json(c, found.user, 200, tagged(found))
    })

    .put('/:id', valid('param', UserId), validJson(NewUser), async (c) => {
      const { id } = c.req.valid('param')
      const versions = await conditions(c, id)
      if (id === null) throw missing()
      const result = changed(await store.update(id, c.req.valid('json'), versions))
      return json(c, result.user, 200, tagged(result))
    })

    .patch('/:id', valid('param', UserId), validJson(UserPatch, PATCH_MEDIA_TYPES), async (c) => {
      const { id } = c.req.valid('param')
      const versions = await conditions(c, id)
      if (id === null) throw missing()
      const patch = c.req.valid('json')
      if (patch.username === undefined && patch.email === undefined) {
        const found = await existing(id)
        assertOneOf(versions, found)
        return json(c, found.user, 200, tagged(found))
      }
      const result = changed(await store.update(id, patch, versions))
      return json(c, result.user, 200, tagged(result))
    })

    .delete('/:id', valid('param', UserId), async (c) => {
      const { id } = c.req.valid('param')
      const versions = await conditions(c, id)
      if (id === null) throw missing()
      changed(await store.remove(id, versions))
      return answer(c, null, 204, {})
    })
}
