//! Pictures, PNG or JPEG, a file each.

use std::io::Cursor;

use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder as _, ImageReader};

use super::column::{Column, Kind};
use super::descriptor::Keys;
use super::error::DataError;
use super::file::MOST_EXPANSION;
use super::number::wide;
use super::samples::Samples;
use super::tree::Tree;
use crate::graph::tensor::Tensor;

/// Pictures and what becomes of them.
#[derive(Clone, Debug)]
pub struct Images {
    /// Where they are.
    pub tree: Tree,
    /// The height and width that they are brought to, by a triangle filter; their own, which must be the same, where it
    /// is not given.
    pub size: Option<(u32, u32)>,
    /// Whether they become grey (one channel, Rec. 709 luma) and not red, green, blue.
    pub is_grey: bool,
}

impl Images {
    pub(super) fn from_keys(keys: &mut Keys) -> Result<Images, DataError> {
        let tree = Tree::from_keys(keys)?;
        let size: Option<[u32; 2]> = keys.take("size")?;
        let channels: Option<u8> = keys.take("channels")?;
        let is_grey = match channels {
            Some(1) => true,
            None | Some(3) => false,
            Some(other) => return Err(DataError::key("channels", format!("is {other}; give 1 (grey) or 3"))),
        };
        if let Some([height, width]) =
            size.filter(|size| size.contains(&0) || size.iter().any(|&side| side > MOST_SIDE))
        {
            return Err(DataError::key("size", format!("is [{height}, {width}]; give sides from 1 to {MOST_SIDE}")));
        }
        Ok(Images { tree, size: size.map(|[height, width]| (height, width)), is_grey })
    }

    /// u8 [n, channels, height, width].
    pub(super) fn read(&self, input: &str) -> Result<Samples, DataError> {
        let kind = Kind::Numbers { channels_last: false, full_scale: Some(255.0) };
        self.tree.read(&["png", "jpg", "jpeg"], input, |values| Column::new(values, kind), |bytes| self.decode(bytes))
    }

    fn decode(&self, bytes: &[u8]) -> Result<Tensor, String> {
        let problem =
            |error: &dyn std::fmt::Display| format!("cannot be decoded ({error}); fetch it again or leave it out");
        let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| problem(&error))?;
        let decoder = reader.into_decoder().map_err(|error| problem(&error))?;
        let room = wide(bytes.len()).saturating_mul(MOST_EXPANSION);
        if decoder.total_bytes() > room {
            let (width, height) = decoder.dimensions();
            return Err(format!("claims {width} × {height} pixels, more than {} bytes can hold", bytes.len()));
        }
        let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| problem(&error))?;
        if let Some((height, width)) = self.size.filter(|size| *size != (picture.height(), picture.width())) {
            picture = picture.resize_exact(width, height, FilterType::Triangle);
        }
        let side = |side: u32| usize::try_from(side).map_err(|error| error.to_string());
        let (height, width) = (side(picture.height())?, side(picture.width())?);
        let (n_channels, pixels) =
            if self.is_grey { (1, picture.into_luma8().into_raw()) } else { (3, picture.into_rgb8().into_raw()) };
        let mut planes: Vec<u8> = Vec::with_capacity(pixels.len());
        for channel in 0..n_channels {
            planes.extend(pixels.iter().skip(channel).step_by(n_channels));
        }
        Tensor::new(&[n_channels, height, width], planes).map_err(|error| error.to_string())
    }
}

/// No network takes larger pictures, and the memory that they need is bounded so.
const MOST_SIDE: u32 = 8192;
