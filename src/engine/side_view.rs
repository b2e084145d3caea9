//! The view of a side: its connection, its place in it, and the data that a program keeps with it.

use std::any::Any;
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

use crate::engine::connection_view::ConnectionMut;
use crate::engine::control::Loop;
use crate::engine::core::Core;
use crate::relay::connection::Stage;
use crate::relay::side::{Owner, Role};
use crate::types::id::{Id, Kind};
use crate::types::reason::Reason;
use crate::types::verb_error::VerbError;

/// A side of a borrowed loop. It dereferences to the view of its connection, so all verbs on the connection are verbs of
/// the side.
pub struct SideMut<'a> {
    connection: ConnectionMut<'a>,
    side: Id,
    role: Role,
}

/// The data that a program keeps with sides. It takes no memory for a side without data.
#[derive(Default)]
pub(crate) struct SideData {
    of_sides: HashMap<Id, Data>,
    /// The last side that was given each token.
    by_token: HashMap<u64, Id>,
}

/// The data of one side. At least one of the two is there.
#[derive(Default)]
struct Data {
    value: Option<Box<dyn Any>>,
    token: Option<u64>,
}

impl Loop<'_> {
    /// Returns the view of a side.
    ///
    /// # Errors
    /// * [`VerbError::Over`]: the connection of the side is over, or it ended a while ago
    /// * [`VerbError::Stale`]: the id names no side of a connection, or one that is gone
    /// * [`VerbError::Invalid`]: the id is that of another kind of record
    pub fn side(&mut self, id: Id) -> Result<SideMut<'_>, VerbError> {
        let Some(side) = self.sides.get(id) else { return Err(self.ended.missing(id, Kind::Side)) };
        let Owner::Connection(connection, role) = side.owner else { return Err(VerbError::Stale) };
        match self.connections.get(connection) {
            Some(record) if record.stage == Stage::Closed => {
                Err(VerbError::Over(record.reason.unwrap_or(Reason::Internal)))
            }
            Some(_) => Ok(SideMut::new(self.reborrow(), id, connection, role)),
            None => Err(VerbError::Stale),
        }
    }
}

impl Core {
    /// Returns the side with a token of [`SideMut::set_token`], or `None` if no side has it. If several sides have the same
    /// token, this is the last one that got it, or `None` once that one is gone.
    pub fn side_of_token(&self, token: u64) -> Option<Id> {
        self.side_data.by_token.get(&token).copied()
    }
}

impl<'a> SideMut<'a> {
    /// Makes the view of a side that exists.
    pub(crate) fn new(core: Loop<'a>, side: Id, connection: Id, role: Role) -> SideMut<'a> {
        SideMut { connection: ConnectionMut::new(core, connection), side, role }
    }

    /// Returns the id of the side. [`ConnectionMut::id`] is the id of its connection.
    pub fn side(&self) -> Id {
        self.side
    }

    /// Returns the role of the side: source or dest.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Returns the other side of the connection, or `None` if there is no dest.
    pub fn other(&self) -> Option<Id> {
        self.side_of(self.role.other())
    }

    /// Returns the reason of an orderly close by this side.
    pub fn fin_reason(&self) -> Reason {
        match self.role {
            Role::Source => Reason::SourceFin,
            Role::Dest => Reason::DestFin,
        }
    }

    /// Keeps a value with the side until the side is gone, in place of the present value, which it returns. The value is
    /// dropped after the last callback of the connection.
    pub fn set_data(&mut self, value: Box<dyn Any>) -> Option<Box<dyn Any>> {
        let side = self.side;
        self.core().side_data.of_sides.entry(side).or_default().value.replace(value)
    }

    /// Returns the value of the side, or `None` if it has none or one of another type.
    pub fn data<T: Any>(&self) -> Option<&T> {
        self.core_ref().side_data.of_sides.get(&self.side)?.value.as_ref()?.downcast_ref()
    }

    /// Returns the value of the side for changes, or `None` if it has none or one of another type.
    pub fn data_mut<T: Any>(&mut self) -> Option<&mut T> {
        let side = self.side;
        self.core().side_data.of_sides.get_mut(&side)?.value.as_mut()?.downcast_mut()
    }

    /// Takes the value of the side out.
    pub fn take_data(&mut self) -> Option<Box<dyn Any>> {
        let side = self.side;
        let data = &mut self.core().side_data;
        let value = data.of_sides.get_mut(&side)?.value.take();
        data.forget_empty(side);
        value
    }

    /// Keeps a number with the side, such as a pointer of a caller in another language, until the side is gone; `None`
    /// removes it. [`Core::side_of_token`] finds the side by it.
    pub fn set_token(&mut self, token: Option<u64>) {
        let side = self.side;
        let data = &mut self.core().side_data;
        data.forget_token(side);
        if let Some(token) = token {
            data.of_sides.entry(side).or_default().token = Some(token);
            data.by_token.insert(token, side);
        }
        data.forget_empty(side);
    }

    /// Returns the number that is kept with the side.
    pub fn token(&self) -> Option<u64> {
        self.core_ref().side_data.of_sides.get(&self.side)?.token
    }
}

impl<'a> Deref for SideMut<'a> {
    type Target = ConnectionMut<'a>;

    fn deref(&self) -> &ConnectionMut<'a> {
        &self.connection
    }
}

impl DerefMut for SideMut<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.connection
    }
}

impl SideData {
    /// Drops the data of a side that is gone.
    #[inline]
    pub fn remove(&mut self, side: Id) {
        if !self.of_sides.is_empty() {
            self.forget_token(side);
            self.of_sides.remove(&side);
        }
    }

    fn forget_token(&mut self, side: Id) {
        if let Some(token) = self.of_sides.get_mut(&side).and_then(|data| data.token.take())
            && self.by_token.get(&token) == Some(&side)
        {
            self.by_token.remove(&token);
        }
    }

    fn forget_empty(&mut self, side: Id) {
        if self.of_sides.get(&side).is_some_and(|data| data.value.is_none() && data.token.is_none()) {
            self.of_sides.remove(&side);
        }
    }
}
