import { Hono } from 'hono'
import type { Config } from '../config.ts'
import { answer, json } from '../http/answer.ts'
import { createEachLine, MADE_HERE } from '../http/bulk.ts'
import { answerPresent, CACHE, startingVersions, versionHeaders } from '../http/conditional.ts'
import type { Env } from '../http/env.ts'
import { idempotencyOf } from '../http/idempotency.ts'
import { idAfter, LIMIT_DEFAULT, nextLink, type Page, pageOf, pageOfIds, textAfter, wantsFresh } from '../http/list.ts'
import { streamInstead } from '../http/ndjson.ts'
import { wantsHtml } from '../http/page.ts'
import { changed } from '../http/refusal.ts'
import { type ItemContext, PATCH_MEDIA_TYPES, POST_MEDIA_TYPES, valid, validId } from '../http/validate.ts'
import { listPage } from './page.ts'
import { ListQuery, NewUser, NOUN, type User, UserPatch } from './schemas.ts'
import type { UserStore } from './store.ts'

/** The routes under `/users`. */
export function userRoutes(store: UserStore, config: Config) {
  /** The users that a query asks for: those with its ids, those whose names begin so, or all by id. */
  async function listed(query: ListQuery, fresh: boolean, until: number): Promise<Page<User>> {
    const { id: ids, limit = LIMIT_DEFAULT, cursor, usernamePrefix: prefix, ...sought } = query
    if (ids) return pageOfIds(ids, store.get, until)
    if (prefix !== undefined) {
      const users = await store.listByName({ prefix, after: textAfter(cursor), limit: limit + 1, fresh }, until)
      return pageOf(users, limit, ({ username }) => username)
    }
    const users = await store.list({ ...sought, after: idAfter(cursor), limit: limit + 1, fresh }, until)
    return pageOf(users, limit, ({ id }) => id)
  }

  async function change(c: ItemContext, patch: UserPatch) {
    const { id } = c.req.valid('param')
    const versions = await startingVersions(c, NOUN, store.get)
    const update = (until: number) => store.update(id, patch, versions, until)
    const { version, ...user } = await changed(c, NOUN, 'update', update, id)
    return json(c, user, 200, versionHeaders(version))
  }

  const createLines = createEachLine(config, NewUser.extend(MADE_HERE), (c, { username, email }) =>
    changed(c, NOUN, 'create', (until) => store.create({ username, email, key: null, hash: null }, until, 'streams')),
  )

  return new Hono<Env>()
    .get('/', valid('query', ListQuery), streamInstead(config.MAX_STREAMS, store.stream), async (c) => {
      const asPage = config.PAGE === 'on' && wantsHtml(c)
      // The forms of the page lead back to it: a person looks there for what was just done.
      const { rows: users, ...page } = await listed(c.req.valid('query'), asPage || wantsFresh(c), c.get('until'))
      if (asPage) return listPage(c, users, page.next)
      return json(c, { users, ...page }, 200, { ...CACHE, Vary: 'Accept', ...nextLink(c, page.next) })
    })

    .post('/', createLines, valid('json', NewUser, POST_MEDIA_TYPES), async (c) => {
      const body = c.req.valid('json')
      const row = { ...body, ...idempotencyOf(c, [body.username, body.email]) }
      const { version, ...user } = await changed(c, NOUN, 'create', (until) => store.create(row, until))
      return json(c, user, 201, { ...versionHeaders(version), Location: `/users/${user.id}` })
    })

    .get('/:id', validId, (c) => answerPresent(c, NOUN, store.get))

    .put('/:id', validId, valid('json', NewUser), (c) => change(c, c.req.valid('json')))

    .patch('/:id', validId, valid('json', UserPatch, PATCH_MEDIA_TYPES), (c) => change(c, c.req.valid('json')))

    .delete('/:id', validId, async (c) => {
      const { id } = c.req.valid('param')
      const versions = await startingVersions(c, NOUN, store.get)
      await changed(c, NOUN, 'delete', (until) => store.remove(id, versions, until), id)
      return answer(c, null, 204, {})
    })
}
