import { Hono } from 'hono'
import type { Config } from '../../../src/config.ts'
import { answer, json } from '../../../src/http/answer.ts'
import { createEachLine, MADE_HERE } from '../../../src/http/bulk.ts'
import { answerPresent, CACHE, startingVersions, versionHeaders } from '../../../src/http/conditional.ts'
import type { Env } from '../../../src/http/env.ts'
import { idempotencyOf } from '../../../src/http/idempotency.ts'
import { idAfter, LIMIT_DEFAULT, nextLink, pageOf, pageOfIds, wantsFresh } from '../../../src/http/list.ts'
import { streamInstead } from '../../../src/http/ndjson.ts'
import { changed } from '../../../src/http/refusal.ts'
import { type ItemContext, PATCH_MEDIA_TYPES, POST_MEDIA_TYPES, valid, validId } from '../../../src/http/validate.ts'
import { ListQuery, NoteInput, NotePatch } from './schemas.ts'
import type { NoteStore } from './store.ts'

const NOUN = 'note'

/** The routes under `/notes`. */
export function noteRoutes(store: NoteStore, config: Config) {
  async function change(c: ItemContext, patch: NotePatch) {
    const { id } = c.req.valid('param')
    const versions = await startingVersions(c, NOUN, store.get)
    const update = (until: number) => store.update(id, patch, versions, until)
    const { version, ...note } = await changed(c, NOUN, 'update', update, id)
    return json(c, note, 200, versionHeaders(version))
  }

  const createLines = createEachLine(config, NoteInput.extend(MADE_HERE), (c, { userId, text }) =>
    changed(c, NOUN, 'create', (until) => store.create({ userId, text, key: null, hash: null }, until, 'streams')),
  )

  return new Hono<Env>()
    .get('/', valid('query', ListQuery), streamInstead(config.MAX_STREAMS, store.stream), async (c) => {
      const { id: ids, limit = LIMIT_DEFAULT, cursor } = c.req.valid('query')
      const until = c.get('until')
      const place = () => ({ limit: limit + 1, after: idAfter(cursor), fresh: wantsFresh(c) })
      const { rows: notes, ...page } = ids
        ? await pageOfIds(ids, store.get, until)
        : pageOf(await store.list(place(), until), limit, ({ id }) => id)
      return json(c, { notes, ...page }, 200, { ...CACHE, Vary: 'Accept', ...nextLink(c, page.next) })
    })
    .post('/', createLines, valid('json', NoteInput, POST_MEDIA_TYPES), async (c) => {
      const body = c.req.valid('json')
      const row = { ...body, ...idempotencyOf(c, [body.userId, body.text]) }
      const { version, ...note } = await changed(c, NOUN, 'create', (until) => store.create(row, until))
      return json(c, note, 201, { ...versionHeaders(version), Location: `/notes/${note.id}` })
    })
    .get('/:id', validId, (c) => answerPresent(c, NOUN, store.get))
    .put('/:id', validId, valid('json', NoteInput), (c) => change(c, c.req.valid('json')))
    .patch('/:id', validId, valid('json', NotePatch, PATCH_MEDIA_TYPES), (c) => change(c, c.req.valid('json')))
    .delete('/:id', validId, async (c) => {
      const { id } = c.req.valid('param')
      const versions = await startingVersions(c, NOUN, store.get)
      await changed(c, NOUN, 'delete', (until) => store.remove(id, versions, until), id)
      return answer(c, null, 204, {})
    })
}
