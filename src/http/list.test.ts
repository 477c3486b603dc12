import fc from 'fast-check'
import { expect, test } from 'vitest'
import { MAX_ID } from '../db/columns.ts'
import { encodeCursor, idAfter, listQuery, pageOf, textAfter } from './list.ts'

test('a cursor gives back the place that it was made of, to a list that goes by the same', () => {
  const name = fc.stringMatching(/^\P{Cc}{1,80}$/u)
  fc.assert(
    fc.property(fc.integer({ min: 1, max: MAX_ID }), name, (id, text) => {
      const [byId, byText] = [encodeCursor(id), encodeCursor(text)]
      expect(listQuery({}).safeParse({ cursor: byText }).data).toEqual({ cursor: byText })
      expect([idAfter(byId), textAfter(byText)]).toEqual([id, text])
      for (const read of [() => idAfter(byText), () => textAfter(byId)]) {
        expect(read).toThrow('cursor is not a cursor of this list: take `next` of the page before')
      }
    }),
  )
})

test('a list starts before all ids and texts', () => {
  expect([idAfter(undefined), textAfter(undefined)]).toEqual([0, ''])
})

test('nothing else is a cursor', () => {
  const refused = (cursor: string) => {
    expect(() => idAfter(cursor), cursor).toThrow('not a cursor')
    expect(() => textAfter(cursor), cursor).toThrow('not a cursor')
  }
  const almost = ['', 'MTo', 'MTow', 'MTox=', 'MTox ', 'MTy', 'MTotMQ', 'MToxLjU', 'MTowMQ', encodeCursor(1e17)]
  for (const cursor of [...almost, encodeCursor(''), encodeCursor('a\0'), 'Mjr_', 'Mzph']) refused(cursor)
  expect(listQuery({}).safeParse({ cursor: encodeCursor('x'.repeat(400)) }).success).toBe(false)
  fc.assert(fc.property(fc.string(), refused))
})

const placeOf = ({ id }: { id: number }) => id

test('a page says where the next begins, and the last that there is none', () => {
  const rows = [{ id: 1 }, { id: 3 }, { id: 4 }]
  expect(pageOf(rows, 2, placeOf)).toEqual({ rows: [{ id: 1 }, { id: 3 }], next: encodeCursor(3) })
  expect(pageOf(rows, 3, placeOf)).toEqual({ rows, next: null })
  expect(pageOf([], 3, placeOf)).toEqual({ rows: [], next: null })
})
