import { type Context, Hono } from 'hono'
import { answer, json } from '../http/answer.ts'
import { entityTag, ifMatch, ifNoneMatch } from '../http/conditional.ts'
import type { Env } from '../http/env.ts'
import { NDJSON_MEDIA_TYPE, ndjson, wantsNdjson } from '../http/ndjson.ts'
import { Problem, ProblemType, unavailableProblem } from '../http/problem.ts'
import { valid } from '../http/validate.ts'
import { LIMIT_DEFAULT, ListQuery, NewUser, PATCH_MEDIA_TYPES, UserId, UserPatch } from './schemas.ts'
import type { Conflict, StoredUser, UserStore, Versions } from './store.ts'

/** A client may keep a user, but must ask again each time: another request may have changed it. */
const CACHE = { 'Cache-Control': 'private, no-cache' }
const tagged = ({ version }: StoredUser) => ({ ...CACHE, ETag: entityTag(version) })

const missing = () => new Problem(404, 'There is no user with this id.')
const stale = () => new Problem(412, "The user's version does not meet the condition of the request.")

function assertOneOf(versions: Versions, { version }: StoredUser) {
  if (versions && !versions.includes(version)) throw stale()
}

/** Why the store did not do what was asked. */
function refusal(result: Conflict | { outcome: 'missing' | 'stale' | 'key-reused' }): Problem {
  switch (result.outcome) {
    case 'missing':
      return missing()
    case 'stale':
      return stale()
    case 'key-reused':
      return new Problem(422, 'This Idempotency-Key has already created a user from another body.', {
        type: ProblemType.idempotencyKeyReused,
      })
    case 'conflict':
      return new Problem(409, `Another user has this ${result.fields.join(' and this ')}.`, {
        type: ProblemType.conflict,
        errors: result.fields.map((field) => ({ pointer: `/${field}`, detail: 'is taken by another user' })),
      })
  }
}

/** Printable ASCII, as the field's draft (draft-ietf-httpapi-idempotency-key-header) allows at most. */
const IDEMPOTENCY_KEY = /^[\x21-\x7e]{1,255}$/

function idempotencyKey(value: string | undefined): string | undefined {
  if (value === undefined || IDEMPOTENCY_KEY.test(value)) return value
  throw new Problem(400, 'Idempotency-Key must be 1 to 255 printable ASCII characters without spaces.')
}

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

  async function existing(c: Context<Env>, id: number): Promise<StoredUser> {
    const found = await store.get(id, c.get('until'))
    if (!found) throw missing()
    return found
  }

  /**
   * The versions that a change may start from (RFC 9110, section 13.2.2). If-None-Match, rare on a change, is compared
   * with the present version, and the change then bound to that.
   */
  async function conditions(c: Context<Env>, id: number): Promise<Versions> {
    const versions = ifMatch(c.req.header('if-match'))
    const excluded = ifNoneMatch(c.req.header('if-none-match'))
    if (!excluded) return versions
    const found = await existing(c, id)
    assertOneOf(versions, found)
    if (excluded(found.version)) throw stale()
    return [found.version]
  }

  function stream(c: Context<Env>, after: number): Response | Promise<Response> {
    const { cursor: _, ...others } = c.req.query()
    const [unfit] = Object.keys(others)
    if (unfit) throw new Problem(400, `${unfit} does not go with ${NDJSON_MEDIA_TYPE}, which has every user.`)
    if (streams >= maxStreams) throw unavailableProblem('Too many streams are under way.')
    const headers = { 'Cache-Control': 'private, no-store', Vary: 'Accept' }
    if (c.req.method === 'HEAD') return answer(c, null, 200, { ...headers, 'Content-Type': NDJSON_MEDIA_TYPE })
    return ndjson(c, counted(store.lines(after)), headers)
  }

  return new Hono<Env>()
    .get('/', valid('query', ListQuery), async (c) => {
      const { limit = LIMIT_DEFAULT, cursor: after = 0, username, email } = c.req.valid('query')
      if (wantsNdjson(c)) return stream(c, after) as never
      const page = await store.list({ limit, after, username, email }, c.get('until'))
      const headers: Record<string, string> = { ...CACHE, Vary: 'Accept' }
      if (page.next !== null) {
        const query = new URLSearchParams({ ...c.req.query(), cursor: page.next })
        headers.Link = `<${c.req.path}?${query}>; rel="next"`
      }
      return json(c, page, 200, headers)
    })

    .post('/', valid('json', NewUser), async (c) => {
      const key = idempotencyKey(c.req.header('idempotency-key'))
      const result = await store.create(c.req.valid('json'), key, c.get('until'))
      if (result.outcome !== 'created') throw refusal(result)
      return json(c, result.user, 201, { ...tagged(result), Location: `/users/${result.user.id}` })
    })

    .get('/:id', valid('param', UserId), async (c) => {
      const { id } = c.req.valid('param')
      const found = await existing(c, id)
      assertOneOf(ifMatch(c.req.header('if-match')), found)
      if (ifNoneMatch(c.req.header('if-none-match'))?.(found.version)) {
        return answer(c, null, 304, tagged(found)) as never
      }
      return json(c, found.user, 200, tagged(found))
    })

    .put('/:id', valid('param', UserId), valid('json', NewUser), async (c) => {
      const { id } = c.req.valid('param')
      const versions = await conditions(c, id)
      const result = await store.update(id, c.req.valid('json'), versions, c.get('until'))
      if (result.outcome !== 'updated') throw refusal(result)
      return json(c, result.user, 200, tagged(result))
    })

    .patch('/:id', valid('param', UserId), valid('json', UserPatch, PATCH_MEDIA_TYPES), async (c) => {
      const { id } = c.req.valid('param')
      const versions = await conditions(c, id)
      const patch = c.req.valid('json')
      if (patch.username === undefined && patch.email === undefined) {
        const found = await existing(c, id)
        assertOneOf(versions, found)
        return json(c, found.user, 200, tagged(found))
      }
      const result = await store.update(id, patch, versions, c.get('until'))
      if (result.outcome !== 'updated') throw refusal(result)
      return json(c, result.user, 200, tagged(result))
    })

    .delete('/:id', valid('param', UserId), async (c) => {
      const { id } = c.req.valid('param')
      const versions = await conditions(c, id)
      const result = await store.remove(id, versions, c.get('until'))
      if (result.outcome !== 'removed') throw refusal(result)
      return answer(c, null, 204, {})
    })
}
